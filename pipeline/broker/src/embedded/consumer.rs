//! Reading the log: what was appended lately from memory, the rest from the file.

use std::{
    collections::HashSet,
    future::ready,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use super::{Log, Shared, file, lock, size, stopped};
use crate::{BrokerError, Consumer, Lag, Offsets, Partition, Record, Start, Subscription, Turn};

/// How much a turn holds, whatever the number of its records.
const TURN_BYTES: usize = 8 * 1024 * 1024;

pub(super) struct EmbeddedConsumer {
    shared: Arc<Shared>,
    group: Option<String>,
    max_batch: usize,
    cursors: Vec<Cursor>,
    /// Where the next batch starts to look, so that no partition starves another.
    turn: usize,
    assigned: bool,
    appended: watch::Receiver<u64>,
    reader: Arc<Mutex<Option<Connection>>>,
}

struct Cursor {
    log: Arc<Log>,
    next: i64,
    paused: bool,
    /// The furthest that was committed here.
    committed: Option<i64>,
}

impl EmbeddedConsumer {
    pub(super) fn new(shared: Arc<Shared>, what: Subscription) -> Result<Self, BrokerError> {
        let mut logs = Vec::new();
        for topic in &what.topics {
            logs.extend(shared.topic(topic)?.partitions);
        }
        if let Some(group) = &what.group
            && !lock(&shared.members).insert(group.clone())
        {
            return Err(BrokerError::Held(format!(
                "group {group} has a member already: the embedded broker takes one for each"
            )));
        }
        let cursors = logs
            .into_iter()
            .map(|log| Cursor {
                next: first(&shared, what.group.as_deref(), &log, what.start),
                log,
                paused: false,
                committed: None,
            })
            .collect();
        Ok(Self {
            appended: shared.appended.subscribe(),
            shared,
            group: what.group,
            max_batch: what.max_batch.max(1),
            cursors,
            turn: 0,
            assigned: false,
            reader: Arc::default(),
        })
    }

    /// What is there now, from one partition after the other.
    async fn gather(&mut self) -> Result<Vec<Record>, BrokerError> {
        let mut records = Vec::new();
        let mut bytes = TURN_BYTES;
        let mut moved = Vec::new();
        let count = self.cursors.len();
        for step in 0..count {
            let room = self.max_batch - records.len();
            if room == 0 || bytes == 0 {
                break;
            }
            let index = (self.turn + step) % count;
            let (more, next) = self.read(index, room, bytes).await?;
            bytes = bytes.saturating_sub(more.iter().map(size).sum());
            records.extend(more);
            moved.push((index, next));
        }
        // Only now, with no await after it: a future that was dropped has moved nothing.
        for (index, next) in moved {
            self.cursors[index].next = next;
            self.turn = (index + 1) % count;
        }
        Ok(records)
    }

    /// Up to `room` records of a partition; from the file, not much more than `bytes`.
    async fn read(
        &self,
        index: usize,
        room: usize,
        bytes: usize,
    ) -> Result<(Vec<Record>, i64), BrokerError> {
        let cursor = &self.cursors[index];
        let from = {
            let state = lock(&cursor.log.state);
            let from = cursor.next.max(state.start);
            if cursor.paused || from >= state.end {
                return Ok((Vec::new(), cursor.next));
            }
            if let Some(oldest) = state.tail.front().filter(|oldest| oldest.offset <= from) {
                let skip = (from - oldest.offset) as usize;
                let records: Vec<Record> =
                    state.tail.iter().skip(skip).take(room).cloned().collect();
                let next = records.last().map_or(from, |last| last.offset + 1);
                return Ok((records, next));
            }
            from
        };
        let (reader, path) = (Arc::clone(&self.reader), self.shared.file.clone());
        let log = Arc::clone(&cursor.log);
        let read = spawn_blocking(move || {
            let mut reader = lock(&reader);
            let connection = match &mut *reader {
                Some(connection) => connection,
                none => none.insert(file::open_reader(&path)?),
            };
            file::read(connection, &log, from, room, bytes)
        });
        let read = async { read.await.map_err(|_| stopped())? };
        let records = self.shared.trips.read.time(read).await?;
        let next = records.last().map_or(from, |last| last.offset + 1);
        Ok((records, next))
    }

    fn cursors_of<'a>(
        &'a mut self,
        partitions: &'a [Partition],
    ) -> impl Iterator<Item = &'a mut Cursor> {
        let wanted: HashSet<&Partition> = partitions.iter().collect();
        self.cursors
            .iter_mut()
            .filter(move |cursor| wanted.contains(&cursor.log.partition))
    }
}

/// Where a group, or a reader without one, starts.
fn first(shared: &Shared, group: Option<&str>, log: &Log, start: Start) -> i64 {
    let committed = group.and_then(|group| {
        let key = (group.to_owned(), log.partition.clone());
        lock(&shared.committed).offsets.get(&key).copied()
    });
    let state = lock(&log.state);
    match (committed, start) {
        // A group that has read to the end of a log that is gone starts over.
        (Some(next), _) => next.min(state.end),
        (None, Start::Earliest) => state.start,
        (None, Start::Latest) => state.end,
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            lock(&self.shared.members).remove(group);
        }
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn next(&mut self, wait: Duration) -> Result<Turn, BrokerError> {
        if !self.assigned {
            self.assigned = true;
            let all = self
                .cursors
                .iter()
                .map(|cursor| cursor.log.partition.clone());
            return Ok(Turn::Assigned(all.collect()));
        }
        let until = Instant::now() + wait;
        loop {
            // Seen before looking: an append in between wakes us at once.
            self.appended.borrow_and_update();
            let records = self.gather().await?;
            if !records.is_empty() {
                return Ok(Turn::Records(records));
            }
            match timeout_at(until, self.appended.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(stopped()),
                Err(_) => return Ok(Turn::Idle),
            }
        }
    }

    fn commit(&mut self, frontier: &Offsets) {
        let Some(group) = &self.group else { return };
        let mut committed = lock(&self.shared.committed);
        for cursor in &mut self.cursors {
            let Some(next) = frontier.get(&cursor.log.partition) else {
                continue;
            };
            if cursor.committed.is_none_or(|committed| committed < *next) {
                cursor.committed = Some(*next);
                let key = (group.clone(), cursor.log.partition.clone());
                committed.offsets.insert(key.clone(), *next);
                committed.unsaved.insert(key);
            }
        }
    }

    fn pause(&mut self, partitions: &[Partition]) {
        self.cursors_of(partitions)
            .for_each(|cursor| cursor.paused = true);
    }

    fn resume(&mut self, partitions: &[Partition]) {
        self.cursors_of(partitions)
            .for_each(|cursor| cursor.paused = false);
    }

    async fn seek(&mut self, to: &Offsets) -> Result<(), BrokerError> {
        for cursor in &mut self.cursors {
            if let Some(offset) = to.get(&cursor.log.partition) {
                cursor.next = *offset;
            }
        }
        Ok(())
    }

    fn lag(&self) -> Lag {
        let lag = |cursor: &Cursor| {
            let state = lock(&cursor.log.state);
            (
                cursor.log.partition.clone(),
                (state.end - cursor.next.max(state.start)).max(0),
            )
        };
        let lag = self.cursors.iter().map(lag).collect();
        Box::pin(ready(Ok(lag)))
    }

    async fn close(self: Box<Self>) {}
}
