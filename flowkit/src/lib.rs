#![doc = include_str!("../../README.md")]

/// Health and metrics of a process over HTTP.
#[cfg(feature = "health")]
pub use flowkit_observe as health;
#[cfg(feature = "otel")]
pub use flowkit_observe::traces;
pub use flowkit_runtime::*;
#[cfg(feature = "sim")]
pub use flowkit_sim::user as sim;
#[cfg(feature = "embedded")]
pub use flowkit_store_embedded::{EmbeddedStore, OpenError};

#[cfg(feature = "fleet")]
pub mod fleet;
#[cfg(feature = "settings")]
pub mod settings;

/// The guide's pages, whose code is compiled.
#[cfg(all(doctest, feature = "settings"))]
mod guide {
    #[doc = include_str!("../../docs/guide/best-practices.md")]
    mod best_practices {}
    #[doc = include_str!("../../docs/guide/cancellation.md")]
    mod cancellation {}
    #[cfg(feature = "fleet")]
    #[doc = include_str!("../../docs/guide/deployment.md")]
    mod deployment {}
    #[doc = include_str!("../../docs/guide/handlers.md")]
    mod handlers {}
    #[doc = include_str!("../../docs/guide/inputs.md")]
    mod inputs {}
    #[cfg(feature = "health")]
    #[doc = include_str!("../../docs/guide/monitoring.md")]
    mod monitoring {}
    #[doc = include_str!("../../docs/guide/settings.md")]
    mod settings {}
    #[doc = include_str!("../../docs/guide/workers.md")]
    mod workers {}
    #[doc = include_str!("../../docs/guide/graphs.md")]
    mod graphs {}
    #[doc = include_str!("../../docs/guide/operating-tasks.md")]
    mod operating_tasks {}
    #[doc = include_str!("../../docs/guide/rerun-and-retention.md")]
    mod rerun_and_retention {}
}

/// Everything that a program with handlers needs: `use flowkit::prelude::*;`.
pub mod prelude {
    pub use flowkit_runtime::*;
    #[cfg(feature = "embedded")]
    pub use flowkit_store_embedded::{EmbeddedStore, OpenError};
}
