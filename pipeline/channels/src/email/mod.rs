//! E-mail.

pub mod mailgun;
pub mod message;
pub mod ses;
pub mod smtp;
