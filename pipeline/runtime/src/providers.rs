//! Which providers carry which channel.

use std::{collections::HashMap, sync::Arc};

use herald_channels::Provider;
use herald_schemas::words::Channel;

/// For each channel its providers in the order in which they are asked: primary, then fallback.
#[derive(Default, Clone)]
pub struct Providers {
    by_channel: HashMap<Channel, Vec<Arc<dyn Provider>>>,
}

impl Providers {
    /// Sets the providers of a channel.
    pub fn set(&mut self, channel: Channel, providers: Vec<Arc<dyn Provider>>) {
        self.by_channel.insert(channel, providers);
    }

    /// The providers of a channel; empty when nobody carries it.
    pub fn of(&self, channel: Channel) -> &[Arc<dyn Provider>] {
        self.by_channel.get(&channel).map_or(&[], Vec::as_slice)
    }
}
