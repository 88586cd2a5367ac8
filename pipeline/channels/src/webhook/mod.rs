//! Webhooks of whoever is notified.

pub mod standard_webhooks;
