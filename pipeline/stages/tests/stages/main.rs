//! Each stage's decisions, as tables: what comes in, what is said. No broker, no clock, no chance.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod deliver;
mod matching;
mod materialize;
mod poison;
mod render;
mod retry;
mod samples;
mod schedule;
mod whole_way;
