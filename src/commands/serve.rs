//! `serve`.

use migration_gateway::app;

use super::{ConfigFile, Failure};

pub(super) fn run(file: &ConfigFile) -> Result<(), Failure> {
    let config = file.load()?;
    super::begin_logging(&config.telemetry)?;
    app::serve(config, file.path.clone()).map_err(|error| Failure::Other(super::sentence(&error)))
}
