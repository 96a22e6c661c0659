//! Credentials of a project that are not a password, as the configuration has them.

use super::gateway::Place;

/// The account's access key, written out, with its secret key in a file.
pub(crate) fn access_key(place: &Place) -> String {
    let account = place.cloud.account();
    let secret_key = place.secret("secret-key", &account.secret_key);
    format!(
        "kind = \"access-key\"\naccess_key = \"{}\"\nsecret_key = {secret_key}",
        account.access_key
    )
}

/// Those of the agency of an ECS.
pub(crate) fn ecs_agency(place: &Place) -> String {
    let address = place.cloud.metadata_url();
    format!("kind = \"ecs-agency\"\nmetadata_address = \"{address}\"")
}
