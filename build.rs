//! Makes cargo see a fresh migration: `sqlx::migrate!` embeds a folder, whose files the compiler
//! does not watch.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
