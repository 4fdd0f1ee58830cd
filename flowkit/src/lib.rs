#![doc = include_str!("../../README.md")]

pub use flowkit_runtime::*;
#[cfg(feature = "sim")]
pub use flowkit_sim::user as sim;
#[cfg(feature = "embedded")]
pub use flowkit_store_embedded::{EmbeddedStore, OpenError};

#[cfg(feature = "settings")]
pub mod settings;

/// The guide's pages, whose code is compiled.
#[cfg(all(doctest, feature = "settings"))]
mod guide {
    #[doc = include_str!("../../docs/guide/settings.md")]
    mod settings {}
    #[doc = include_str!("../../docs/guide/operating-tasks.md")]
    mod operating_tasks {}
}

/// Everything that a program with handlers needs: `use flowkit::prelude::*;`.
pub mod prelude {
    pub use flowkit_runtime::*;
    #[cfg(feature = "embedded")]
    pub use flowkit_store_embedded::{EmbeddedStore, OpenError};
}
