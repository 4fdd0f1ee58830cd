//! Stands in for the core's machines until they land; removed with them.
use flowkit_core::time::{Mono, Now};
macro_rules! machine {
    ($name:ident, $module:ident) => {
        pub(super) struct $name;
        impl $name {
            pub(super) fn new(_: flowkit_core::$module::Config) -> Self {
                Self
            }
            pub(super) fn handle(
                &mut self,
                _: Now,
                _: flowkit_core::$module::Input,
                _: &mut Vec<flowkit_core::$module::Effect>,
            ) {
            }
            pub(super) fn poll_timeout(&self) -> Option<Mono> {
                None
            }
        }
    };
}
machine!(Worker, worker);
