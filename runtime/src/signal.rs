//! Ctrl-C.

/// Ready when the process is asked to stop: Ctrl-C, or SIGTERM on Unix.
///
/// Ready at once if no signal handler can be installed; that is logged.
pub async fn shutdown_signal() {
    if let Err(error) = wait().await {
        tracing::error!("no signal handler can be installed, stopping at once: {error}");
    }
}

#[cfg(unix)]
async fn wait() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = tokio::signal::ctrl_c() => outcome,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn wait() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
