//! What the tests of the Azure stores share.
#![allow(dead_code)]

pub(crate) mod azurite;
pub(crate) mod conformance;
pub(crate) mod faults;
