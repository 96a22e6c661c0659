//! Secrets are given by reference only. The reference is followed once while the configuration is
//! read, so that a missing secret is found before anything starts; what is kept is the reference.

use super::{
    fault::{Faults, Origin},
    reader::Section,
    values,
};
use crate::{
    domain::secret::{Secret, SecretError, SecretForm, SecretSource},
    upstream,
};

/// Takes out a reference to a secret that must be there. `None` only after a fault was recorded.
pub(super) fn required(
    section: &mut Section,
    (key, form): (&str, SecretForm),
    faults: &mut Faults,
) -> Option<SecretSource> {
    let entry = section.required_entry(key, faults)?;
    if !entry.is_table() {
        faults.add(
            &entry,
            "is a secret, which is given by reference only: \
             write { file = \"PATH\" } or { env = \"VARIABLE\" }",
        );
        return None;
    }
    let mut table = entry.into_section(faults)?;
    let file = table.take("file");
    let env = table.take("env");
    if file.is_some() == env.is_some() {
        table.fault(faults, "must have either `file` or `env`");
    }
    table.finish(faults);
    let file = file.map(|entry| {
        let source = values::text(&entry).map(|path| SecretSource::File(path.into()));
        (entry, source)
    });
    let env = env.map(|entry| {
        let source = values::text(&entry).map(SecretSource::Env);
        (entry, source)
    });
    let (entry, source) = file.xor(env)?;
    let source = source.and_then(|source| check(&source, form).map(|()| source));
    faults.keep(&entry, source)
}

/// Takes out a reference to a secret that must be there, and reads it once. `None` only after a
/// fault was recorded.
pub(super) fn value(section: &mut Section, key: &str, faults: &mut Faults) -> Option<Secret> {
    let form = SecretForm::Text;
    let secret = read(&required(section, (key, form), faults)?, form);
    let fault = |message| faults.push(section.name(key), Origin::File, message);
    secret.map_err(fault).ok()
}

/// Whether the secret can be had. The message does not repeat the reference, as somebody may have
/// written the secret itself in its place.
fn check(source: &SecretSource, form: SecretForm) -> Result<(), String> {
    read(source, form).map(|_secret| ())
}

/// A secret that is read once, as it is just now.
pub(super) fn read(source: &SecretSource, form: SecretForm) -> Result<Secret, String> {
    upstream::read_secret(source, form).map_err(|error| match error {
        SecretError::File(_, error) => format!("refers to a file that cannot be read: {error}"),
        SecretError::Env(_) => {
            "refers to an environment variable that is not set or is not valid UTF-8".to_owned()
        }
        SecretError::Late(_) => "refers to a file that was not read in time".to_owned(),
        SecretError::Empty(_) => "refers to a secret that is empty".to_owned(),
        SecretError::Malformed(_) => match form {
            SecretForm::Text => {
                "refers to a secret with a control character, such as a line end in the middle"
                    .to_owned()
            }
            SecretForm::Key => {
                "refers to a key that is not all visible ASCII without blanks".to_owned()
            }
        },
    })
}
