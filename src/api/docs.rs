//! The page to read and try the API.

use std::{borrow::Cow, sync::Arc};

use actix_web::{
    HttpResponse, Resource, guard,
    http::header::{self, ContentEncoding},
    web::{self, Bytes},
};
use utoipa_swagger_ui::{Config, serve};

use super::problem::Problem;

/// The files of Swagger UI, below the path of their scope.
pub(super) fn browser() -> Resource {
    // A document that is fetched from here, and nothing that is fetched from elsewhere.
    let config = Config::from("/openapi.json").validator_url("none");
    web::resource("/{file:.*}")
        .guard(guard::Get())
        .app_data(web::Data::new(config))
        .to(file)
}

async fn file(
    path: web::Path<String>,
    config: web::Data<Config<'static>>,
) -> Result<HttpResponse, Problem> {
    let config = Arc::clone(&config);
    // The file that the settings are written into is text.
    let file = serve(&path, config).map_err(|_| Problem::internal())?;
    let file = file.ok_or_else(Problem::not_found)?;
    let mut response = HttpResponse::Ok();
    if file.gzpipped {
        response.insert_header((header::CONTENT_ENCODING, ContentEncoding::Gzip));
    }
    // What is part of the program is not copied for each who asks.
    Ok(response
        .content_type(file.content_type)
        .body(match file.bytes {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => Bytes::from(bytes),
        }))
}
