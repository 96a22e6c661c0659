//! `check-config`.

use clap::Args;
use migration_gateway::{
    app::{self, Admission, Login},
    domain::{
        clock::{Clock as _, SystemClock},
        service::UpstreamError,
    },
    listener,
};

use super::{ConfigFile, Failure};

/// Arguments of `check-config`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Also have the cloud let the gateway in, once for each project: by a login, or where requests
    /// are signed by a list of one task. Status 2 if the cloud refuses, 1 if it cannot be asked.
    #[arg(long)]
    login: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.file.load()?;
    super::print(&format!(
        "The configuration is right: {}, {}.",
        count(config.upstream.projects.len(), "project"),
        count(config.identity.callers.len(), "caller"),
    ))?;
    if let Some(warning) = config.listener.as_ref().and_then(warning) {
        super::print(&warning)?;
    }
    if arguments.login {
        let logins =
            app::log_in(config).map_err(|error| Failure::Other(super::sentence(&error)))?;
        report(&logins)?;
    }
    Ok(())
}

/// What is not wrong with the configuration, but will keep callers away.
fn warning(settings: &listener::Settings) -> Option<String> {
    let validity = listener::check(settings).ok()?;
    (!validity.covers(SystemClock.now())).then(|| {
        format!(
            "Warning: server.tls.certificate is valid from {} to {} only.",
            validity.begins_at, validity.expires_at
        )
    })
}

/// Tells of each login: the good ones on the output, the bad ones in the failure.
fn report(logins: &[Login]) -> Result<(), Failure> {
    let mut failures = Vec::new();
    let mut is_refused = false;
    for Login { project, result } in logins {
        match result {
            Ok(Admission::Token) => super::print(&format!("Project {project}: logged in."))?,
            Ok(Admission::Signature) => {
                super::print(&format!(
                    "Project {project}: a signed request was answered."
                ))?;
            }
            Err(error) => {
                is_refused |= error.is_permanent();
                failures.push(format!(
                    "Project {project}: no login ({}): {}{}.",
                    error.kind.as_str(),
                    error.detail.trim_end_matches('.'),
                    answer(error)
                ));
            }
        }
    }
    let text = failures.join("\n");
    if failures.is_empty() {
        Ok(())
    } else if is_refused {
        Err(Failure::Usage(text))
    } else {
        Err(Failure::Other(text))
    }
}

/// What the cloud answered, for whoever looks it up in its documentation or asks its support.
fn answer(error: &UpstreamError) -> String {
    let Some(answer) = &error.answer else {
        return String::new();
    };
    let code = answer.error_code.as_deref().unwrap_or("without a code");
    let id = answer.request_id.as_deref().unwrap_or("unknown");
    format!(
        " (it answered {} {code}, its request id is {id})",
        answer.status
    )
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
