//! Tests on the real kernel, each in a network namespace of its own.

mod agreement;
mod lifecycle;
mod measure;
mod packet;
mod paths;
mod world;
