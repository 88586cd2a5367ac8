//! Which providers carry which channel.

use std::{collections::HashMap, sync::Arc};

use herald_channels::{Provider, http::Url};
use herald_schemas::words::Channel;

/// Those who are asked, in order: primary, then fallback.
pub type Route = Arc<[Arc<dyn Provider>]>;

/// The providers of each channel.
#[derive(Default, Clone)]
pub struct Providers {
    by_channel: HashMap<Channel, Route>,
}

impl Providers {
    /// Sets the providers of a channel.
    pub fn set(&mut self, channel: Channel, providers: Vec<Arc<dyn Provider>>) {
        self.by_channel.insert(channel, providers.into());
    }

    /// The providers of a channel; empty when nobody carries it.
    pub fn of(&self, channel: Channel) -> Route {
        self.by_channel.get(&channel).cloned().unwrap_or_default()
    }
}

/// Whether a provider webhook can be there: an http or https URL.
pub fn is_http_url(text: &str) -> bool {
    let url = text.parse::<Url>();
    url.is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}
