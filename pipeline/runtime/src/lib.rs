//! Runs the stages: reads their records, awaits their acks, commits no further than what is done.
//!
//! What a stage *decides* is pure and lives in `herald_stages`; here is when it is asked and what
//! is done with its answer. Nothing here knows which broker or store it runs on.
//!
//! * [`worker`]: any set of stages in one process.
//! * `transform`, `deliver`, `schedule`, `materialize`: the shapes of a stage's loop.
//! * [`cancel`]: withdrawing what is not sent yet.
//! * [`outbox`], [`inbox`]: records out and in.
//! * [`catalogs`]: the compiled rules and templates.
//! * [`limits`], [`peers`]: how much may be sent, and how much of that here.
//! * [`progress`]: waiting until what was written can be read.
//! * [`setup`]: the topics as they must be.

pub mod cancel;
pub mod catalogs;
mod complaints;
mod deliver;
pub mod inbox;
mod lag;
mod ledger;
pub mod limits;
mod materialize;
pub mod metrics;
pub mod outbox;
pub mod peers;
pub mod progress;
pub mod providers;
mod schedule;
pub mod setup;
pub mod stage;
mod transform;
pub mod worker;
