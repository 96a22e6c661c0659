//! A small, durable REST API over Huawei Cloud migration tasks.
//!
//! The modules in reading order: [`domain`] says what there is and what follows from it;
//! [`transport`] speaks HTTP to the vendor; [`upstream`], [`store`], [`operations`], [`identity`]
//! and [`audit`] stand beside each other on both; [`listener`] encrypts what callers say and
//! [`api`] serves them; [`sandbox`] is a simulated cloud, and [`client`] one who asks a gateway.
//! ARCHITECTURE.md has the picture and the rules.

pub mod api;
pub mod app;
pub mod audit;
pub mod client;
pub mod config;
pub mod domain;
pub mod identity;
pub mod listener;
pub mod operations;
pub mod reload;
pub mod sandbox;
pub mod store;
pub mod telemetry;
pub mod transport;
pub mod upstream;
