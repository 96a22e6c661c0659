//! `GET /problems/{slug}`: what an error means and what to do about it, for people.

use actix_web::{HttpResponse, get, http::header, web};

use super::{Problem, kinds::ProblemType};
use crate::api::request::query::NoQuery;

/// Explain a type of problem.
///
/// What happened, what it means for the task, and what callers and operators can do about it. The
/// `type` of every problem document is the address of such a page.
#[utoipa::path(
    tag = "problems",
    security(()),
    params(("slug" = String, Path, description = "The last part of a problem's `type`.", example = "task-in-progress")),
    responses((
        status = 200,
        description = "Text for people, in Markdown.",
        body = String,
        content_type = "text/plain",
        example = "# The task is in progress\n\n`/problems/task-in-progress`, status 409\n\n## What happened\n…",
    )),
)]
#[get("/problems/{slug}")]
pub(crate) async fn show_problem(
    _query: NoQuery,
    slug: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let kind = ProblemType::ALL.iter().find(|kind| kind.slug() == *slug);
    let kind = kind.ok_or_else(|| {
        Problem::new(
            ProblemType::NotFound,
            "There is no such type of problem. GET /openapi.json lists them all.",
        )
    })?;
    Ok(HttpResponse::Ok()
        // Browsers show plain text, and offer Markdown for download.
        .content_type("text/plain; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "max-age=300"))
        .body(kind.page()))
}

#[cfg(test)]
mod tests {
    use crate::api::problem::kinds::ProblemType;

    #[test]
    fn a_page_begins_with_the_title_the_type_and_the_status_of_its_problem() {
        for kind in ProblemType::ALL {
            let head = format!(
                "# {}\n\n`/problems/{}`, status {}\n\n",
                kind.title(),
                kind.slug(),
                kind.status()
            );
            assert!(kind.page().starts_with(&head), "{kind:?}: {head}");
        }
    }
}
