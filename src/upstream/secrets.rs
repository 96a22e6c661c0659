//! Secrets by reference.

use crate::domain::secret::{Secret, SecretError, SecretSource};

/// Reads a secret from its place.
pub(crate) fn resolve(source: &SecretSource) -> Result<Secret, SecretError> {
    match source {
        SecretSource::File(path) => std::fs::read_to_string(path)
            .map(|text| Secret::new(text.trim_end_matches('\n')))
            .map_err(|error| SecretError::File(path.clone(), error)),
        SecretSource::Env(name) => Err(SecretError::Env(name.clone())),
    }
}
