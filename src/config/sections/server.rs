//! Section `server`.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    num::NonZero,
    path::PathBuf,
};

use super::{HOUR, KIB, MIB, MILLISECOND, SECOND, ordered};
use crate::{
    api::{self, Limits, Network},
    config::{
        address,
        fault::Faults,
        reader::{Entry, Section},
        values::{self, Reading},
    },
    domain::service::ProjectName,
    listener::{self, TlsFile},
};

/// Section `server`, joined with the project that is meant when none is named and with limits, and
/// section `server.tls`.
pub(in crate::config) fn server(
    root: &mut Section,
    default_project: Option<ProjectName>,
    limits: Limits,
    faults: &mut Faults,
) -> (api::Settings, Option<listener::Settings>) {
    let mut server = root.section("server", faults);
    let (default_wait, max_wait) = ordered(
        &mut server,
        ("default_wait", 30 * SECOND),
        ("max_wait", 120 * SECOND),
        faults,
    );
    let settings = api::Settings {
        listen: listen(&mut server, faults),
        public_url: server
            .optional("public_url", faults, address::public_url)
            .flatten(),
        trusted_proxies: server
            .optional("trusted_proxies", faults, networks)
            .unwrap_or_default(),
        workers: server
            .optional("workers", faults, values::number(0, 1024))
            .and_then(NonZero::new)
            .map_or_else(cores, NonZero::get),
        default_wait,
        max_wait,
        drain_timeout: server
            .optional("drain_timeout", faults, values::duration(MILLISECOND, HOUR))
            .unwrap_or(30 * SECOND),
        max_body: server
            .optional("max_body", faults, values::size(KIB, 64 * MIB))
            .unwrap_or(MIB),
        limits,
        default_project,
        // Filled in when the storage credentials are read.
        storage_grants: BTreeMap::new(),
    };
    let tls = tls(&mut server, faults);
    server.finish(faults);
    (settings, tls)
}

/// Section `server.tls`. The files are read, so that what is wrong with them is found before
/// anything starts.
fn tls(server: &mut Section, faults: &mut Faults) -> Option<listener::Settings> {
    let mut tls = server.take("tls")?.into_section(faults)?;
    let mut entries = BTreeMap::new();
    let mut path = |file: TlsFile| {
        let entry = match file {
            TlsFile::ClientCa => tls.take(file.as_str()),
            TlsFile::Certificate | TlsFile::PrivateKey => tls.required_entry(file.as_str(), faults),
        }?;
        let path = values::text(&entry);
        let path = faults.keep(&entry, path);
        entries.insert(file, entry);
        path.map(PathBuf::from)
    };
    let certificate = path(TlsFile::Certificate);
    let private_key = path(TlsFile::PrivateKey);
    let client_ca = path(TlsFile::ClientCa);
    tls.finish(faults);
    let settings = listener::Settings {
        certificate: certificate?,
        private_key: private_key?,
        client_ca,
    };
    for fault in listener::check(&settings).err().into_iter().flatten() {
        if let Some(entry) = entries.get(&fault.file) {
            faults.add(entry, fault.message);
        }
    }
    Some(settings)
}

/// Where to listen, by section `server`.
pub(in crate::config) fn listen(server: &mut Section, faults: &mut Faults) -> SocketAddr {
    server
        .optional("listen", faults, socket_address)
        .unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)))
}

fn socket_address(entry: &Entry) -> Reading<SocketAddr> {
    entry
        .text()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| "must be an address and a port, such as \"127.0.0.1:8080\"".to_owned())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn networks(entry: &Entry) -> Reading<Vec<Network>> {
    let list = entry.list();
    let networks = list.and_then(|list| list.into_iter().map(Network::parse).collect());
    networks.ok_or_else(|| {
        "must be a list of IP addresses and networks, such as [\"192.0.2.7\", \"2001:db8::/32\"], without bits \
         behind the length of a network"
            .to_owned()
    })
}
