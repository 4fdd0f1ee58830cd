//! The store on a real MongoDB passes the suite.

mod mongo_instance;

flowkit_tests::store_conformance!(mongo, mongo_instance::open());
