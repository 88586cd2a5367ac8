//! The admin port: open before anything else is waited for, and until the process ends.

use std::{future::pending, sync::Arc};

use anyhow::{Context, Result};
use herald_api::{Admin, serve_admin};
use herald_runtime::metrics::Metrics;
use tokio::net::TcpListener;
use tracing::{error, info};

use crate::config::Config;

/// Answers on the port, if there is to be one, from now on.
pub(crate) async fn open(config: &Config, metrics: &Arc<Metrics>) -> Result<Admin> {
    let admin = Admin::new(Arc::clone(metrics));
    let Some(address) = config.admin.listen.0 else {
        return Ok(admin);
    };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address} for metrics and health: set HERALD_ADMIN_LISTEN to another \
             address, one for each process of this machine, or to nothing for none"
        )
    })?;
    info!(address = %listener.local_addr()?, "metrics and health are shown");
    let shown = admin.clone();
    tokio::spawn(async move {
        if let Err(error) = serve_admin(shown, listener, pending()).await {
            error!(%error, "metrics and health are not shown any more");
        }
    });
    Ok(admin)
}
