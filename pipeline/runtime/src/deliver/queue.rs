//! What was read and not picked yet: a queue a partition, picked by channel and lane, one record
//! at a time for each recipient.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use herald_broker::{Partition, Record};
use herald_schemas::{
    records::DeliveryReady,
    topics::Topics,
    words::{Channel, Priority},
};

use super::lanes::LanePicker;

/// A partition with more than this many records waiting is read no further …
const PAUSE_ABOVE: usize = 256;
/// … until it has fewer than this. Far apart, since a pause throws away what was read ahead.
const RESUME_BELOW: usize = 64;

/// A record that waits for its turn.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) record: Record,
    pub(super) delivery: DeliveryReady,
}

/// All queues of a worker.
pub(super) struct Queues {
    channels: Vec<ChannelQueues>,
    /// The channel and lane of each topic.
    topics: HashMap<Arc<str>, (usize, usize)>,
    queues: HashMap<Partition, Queue>,
    /// How many records wait in all of them.
    len: usize,
    /// The partitions that are this worker's.
    held: HashSet<Partition>,
    next_channel: usize,
}

/// The partitions of one channel, by lane.
#[derive(Default)]
struct ChannelQueues {
    picker: LanePicker,
    lanes: [VecDeque<Partition>; 3],
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Those whose recipient was served when they came to the front, by recipient.
    parked: HashMap<String, VecDeque<Waiting>>,
    /// Those that were parked and whose recipient is free again.
    ready: VecDeque<Waiting>,
    /// Recipients with a record in hand, or with one in `ready`.
    busy: HashSet<String>,
    len: usize,
    paused: bool,
}

impl Queues {
    /// Empty queues for the delivery topics.
    pub(super) fn new(names: &Topics) -> Self {
        let mut topics = HashMap::new();
        for (index, channel) in Channel::ALL.iter().enumerate() {
            for lane in Priority::ALL {
                topics.insert(
                    names.deliveries(*channel, *lane).into(),
                    (index, lane.index()),
                );
            }
        }
        let channels = Channel::ALL
            .iter()
            .map(|_| ChannelQueues::default())
            .collect();
        Self {
            channels,
            topics,
            queues: HashMap::new(),
            len: 0,
            held: HashSet::new(),
            next_channel: 0,
        }
    }

    /// Puts a record at the end of its partition's queue.
    pub(super) fn push(&mut self, record: Record, delivery: DeliveryReady) {
        if !self.queues.contains_key(&record.partition) {
            let (channel, lane) = self
                .topics
                .get(&record.partition.topic)
                .copied()
                .unwrap_or((0, 0));
            self.channels[channel].lanes[lane].push_back(record.partition.clone());
            self.queues
                .insert(record.partition.clone(), Queue::default());
        }
        if let Some(queue) = self.queues.get_mut(&record.partition) {
            queue.len += 1;
            self.len += 1;
            queue.waiting.push_back(Waiting { record, delivery });
        }
    }

    /// The next record to serve, of those that `may_go`: channel by channel in turn, within one by
    /// lane, within that partition by partition in turn. Its recipient is busy until
    /// [`Queues::finish`].
    pub(super) fn pick(
        &mut self,
        mut may_go: impl FnMut(Channel, Priority) -> bool,
    ) -> Option<Waiting> {
        for step in 0..self.channels.len() {
            let index = (self.next_channel + step) % self.channels.len();
            if let Some(picked) = self.pick_of(index, &mut may_go) {
                self.next_channel = index + 1;
                self.len -= 1;
                return Some(picked);
            }
        }
        None
    }

    fn pick_of(
        &mut self,
        channel: usize,
        may_go: &mut impl FnMut(Channel, Priority) -> bool,
    ) -> Option<Waiting> {
        let ChannelQueues { picker, lanes } = &mut self.channels[channel];
        let queues = &mut self.queues;
        let mut ready = [false; 3];
        for (lane, partitions) in lanes.iter().enumerate() {
            let mut has_one = || {
                let mut partitions = partitions.iter();
                partitions.any(|partition| queues.get_mut(partition).is_some_and(Queue::prepare))
            };
            ready[lane] = has_one() && may_go(Channel::ALL[channel], Priority::ALL[lane]);
        }
        let partitions = &mut lanes[picker.pick(ready)?.index()];
        for _ in 0..partitions.len() {
            partitions.rotate_left(1);
            let picked = partitions
                .back()
                .and_then(|last| queues.get_mut(last)?.pick());
            if picked.is_some() {
                return picked;
            }
        }
        None
    }

    /// How many partitions of a channel have records that wait.
    pub(super) fn waiting(&self, channel: Channel) -> usize {
        let lanes = self.channels[channel as usize].lanes.iter().flatten();
        let waits = |partition: &&Partition| {
            let queue = self.queues.get(*partition);
            queue.is_some_and(|queue| queue.len > 0)
        };
        lanes.filter(waits).count()
    }

    /// Notes that a recipient's record is out of hand: the next one may go.
    pub(super) fn finish(&mut self, partition: &Partition, recipient: &str) {
        if let Some(queue) = self.queues.get_mut(partition) {
            queue.finish(recipient);
        }
    }

    /// Notes that partitions are this worker's now.
    pub(super) fn hold(&mut self, partitions: &[Partition]) {
        self.held.extend(partitions.iter().cloned());
    }

    /// How many partitions of each channel are this worker's.
    pub(super) fn held(&self) -> [u32; Channel::ALL.len()] {
        let mut held = [0; Channel::ALL.len()];
        for partition in &self.held {
            if let Some((channel, _)) = self.topics.get(&partition.topic) {
                held[*channel] += 1;
            }
        }
        held
    }

    /// Whether no record waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets partitions that are about to go, and what waits in them.
    pub(super) fn forget(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.held.remove(partition);
            if let Some(queue) = self.queues.remove(partition) {
                self.len -= queue.len;
            }
        }
        for lanes in self
            .channels
            .iter_mut()
            .flat_map(|channel| &mut channel.lanes)
        {
            lanes.retain(|partition| !partitions.contains(partition));
        }
    }

    /// The partitions to pause, and those to resume, as of now.
    pub(super) fn balance(&mut self) -> (Vec<Partition>, Vec<Partition>) {
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (partition, queue) in &mut self.queues {
            if !queue.paused && queue.len > PAUSE_ABOVE {
                queue.paused = true;
                pause.push(partition.clone());
            } else if queue.paused && queue.len < RESUME_BELOW {
                queue.paused = false;
                resume.push(partition.clone());
            }
        }
        (pause, resume)
    }
}

impl Queue {
    /// Parks what cannot go at the front; answers whether something can.
    fn prepare(&mut self) -> bool {
        while self.ready.is_empty() {
            match self.waiting.front() {
                None => return false,
                Some(front) if !self.busy.contains(&front.delivery.identity.recipient) => break,
                Some(_) => {}
            }
            if let Some(front) = self.waiting.pop_front() {
                let recipient = front.delivery.identity.recipient.clone();
                self.parked.entry(recipient).or_default().push_back(front);
            }
        }
        true
    }

    fn pick(&mut self) -> Option<Waiting> {
        if !self.prepare() {
            return None;
        }
        self.len -= 1;
        // Whoever is ready had its recipient kept busy for it.
        self.ready.pop_front().or_else(|| {
            let picked = self.waiting.pop_front()?;
            self.busy.insert(picked.delivery.identity.recipient.clone());
            Some(picked)
        })
    }

    fn finish(&mut self, recipient: &str) {
        let Some(parked) = self.parked.get_mut(recipient) else {
            self.busy.remove(recipient);
            return;
        };
        if let Some(next) = parked.pop_front() {
            self.ready.push_back(next);
        }
        if parked.is_empty() {
            self.parked.remove(recipient);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::deliver::tests::delivery;

    fn queues() -> Queues {
        Queues::new(&Topics::default())
    }

    fn push(queues: &mut Queues, lane: Priority, partition: i32, offset: i64, recipient: &str) {
        let topic = Topics::default().deliveries(Channel::Sms, lane);
        let record = Record {
            partition: Partition::new(topic, partition),
            offset,
            key: None,
            value: Bytes::new(),
            headers: Vec::new(),
            timestamp: 0,
        };
        queues.push(record, delivery(Channel::Sms, lane, recipient));
    }

    fn picks(queues: &mut Queues) -> Vec<i64> {
        std::iter::from_fn(|| queues.pick(|_, _| true))
            .map(|picked| picked.record.offset)
            .collect()
    }

    #[test]
    fn one_record_of_a_recipient_at_a_time_and_in_order() {
        let mut queues = queues();
        for (offset, recipient) in [(0, "a"), (1, "a"), (2, "b"), (3, "a")] {
            push(&mut queues, Priority::Normal, 0, offset, recipient);
        }
        let partition = Partition::new(
            Topics::default().deliveries(Channel::Sms, Priority::Normal),
            0,
        );
        assert_eq!(picks(&mut queues), [0, 2]);
        queues.finish(&partition, "a");
        // Came later, but the one that was parked goes first.
        push(&mut queues, Priority::Normal, 0, 4, "a");
        assert_eq!(picks(&mut queues), [1]);
        queues.finish(&partition, "a");
        assert_eq!(picks(&mut queues), [3]);
        queues.finish(&partition, "a");
        assert_eq!(picks(&mut queues), [4]);
        queues.finish(&partition, "a");
        push(&mut queues, Priority::Normal, 0, 5, "a");
        assert_eq!(picks(&mut queues), [5]);
    }

    #[test]
    fn high_goes_before_low_and_partitions_take_turns() {
        let mut queues = queues();
        for offset in 0..3 {
            push(
                &mut queues,
                Priority::Low,
                0,
                100 + offset,
                &format!("l{offset}"),
            );
            push(
                &mut queues,
                Priority::High,
                0,
                offset,
                &format!("a{offset}"),
            );
            push(
                &mut queues,
                Priority::High,
                1,
                10 + offset,
                &format!("b{offset}"),
            );
        }
        assert_eq!(picks(&mut queues), [0, 10, 1, 11, 2, 12, 100, 101, 102]);
    }

    #[test]
    fn what_may_not_go_stays_and_stands_in_nobodys_way() {
        let mut queues = queues();
        push(&mut queues, Priority::High, 0, 0, "a");
        push(&mut queues, Priority::Low, 0, 1, "a");
        push(&mut queues, Priority::Low, 1, 2, "b");
        let of_low = queues.pick(|_, lane| lane == Priority::Low).unwrap();
        assert_eq!(of_low.record.offset, 1);
        assert!(queues.pick(|_, _| false).is_none());
        assert_eq!(queues.waiting(Channel::Sms), 2);
        assert_eq!(queues.waiting(Channel::Email), 0);
        assert_eq!(picks(&mut queues), [0, 2]);
        assert_eq!(queues.waiting(Channel::Sms), 0);
    }

    #[test]
    fn a_full_queue_pauses_its_partition_until_it_has_room() {
        let mut queues = queues();
        for offset in 0..=PAUSE_ABOVE as i64 {
            push(
                &mut queues,
                Priority::Normal,
                0,
                offset,
                &offset.to_string(),
            );
        }
        let (pause, resume) = queues.balance();
        assert_eq!((pause.len(), resume.len()), (1, 0));
        assert_eq!(queues.balance(), (vec![], vec![]), "a pause is told once");
        assert_eq!(picks(&mut queues).len(), PAUSE_ABOVE + 1);
        let (pause, resume) = queues.balance();
        assert_eq!((pause.len(), resume.len()), (0, 1));
    }

    #[test]
    fn what_is_forgotten_is_not_picked() {
        let mut queues = queues();
        push(&mut queues, Priority::Normal, 0, 0, "a");
        push(&mut queues, Priority::Normal, 1, 1, "b");
        let topic = Topics::default().deliveries(Channel::Sms, Priority::Normal);
        queues.forget(&[Partition::new(topic, 0)]);
        assert_eq!(picks(&mut queues), [1]);
    }
}
