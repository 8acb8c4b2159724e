//! The newest durable number of each journal, for those who wait for the next.
//!
//! Bounded by the number of journals: a channel for a journal without entries is dropped when nobody listens to it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sheaf_domain::JournalId;
use tokio::sync::watch;

use crate::Appended;

/// A channel per journal; none any more once closed.
#[derive(Debug)]
pub(crate) struct Heads(Mutex<Option<HashMap<JournalId, watch::Sender<u64>>>>);

impl Heads {
    /// Channels for journals that stand at these numbers.
    pub(crate) fn standing_at(heads: impl IntoIterator<Item = (JournalId, u64)>) -> Heads {
        let channels = heads.into_iter().map(|(journal, seq)| (journal, watch::Sender::new(seq)));
        Heads(Mutex::new(Some(channels.collect())))
    }

    /// A view of the newest durable number of `journal`; 0 while it has no entry.
    pub(crate) fn watch(&self, journal: JournalId) -> watch::Receiver<u64> {
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(channels) = channels.as_mut() else {
            return watch::Sender::new(0).subscribe();
        };
        if !channels.contains_key(&journal) {
            channels.retain(|_, channel| *channel.borrow() > 0 || channel.receiver_count() > 0);
        }
        channels.entry(journal).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Tells the listeners what has become durable.
    pub(crate) fn advance(&self, appended: &[Appended]) {
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(channels) = channels.as_mut() else {
            return;
        };
        for Appended { journal, entries } in appended {
            if let Some(last) = entries.last() {
                channels.entry(*journal).or_insert_with(|| watch::Sender::new(0)).send_replace(last.seq);
            }
        }
    }

    /// Ends the channel of a journal that is no more.
    pub(crate) fn remove(&self, journal: JournalId) {
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channels) = channels.as_mut() {
            channels.remove(&journal);
        }
    }

    /// Ends every channel: listeners learn that nothing more will come.
    pub(crate) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheaf_domain::RunId;

    #[test]
    fn channels_nobody_listens_to_are_dropped() {
        let heads = Heads::standing_at([]);
        let kept = heads.watch(JournalId::Federation);
        for run in 1..100 {
            drop(heads.watch(JournalId::Run(RunId::new(run).unwrap())));
        }
        assert!(heads.0.lock().unwrap().as_ref().unwrap().len() <= 2);
        assert_eq!(*kept.borrow(), 0);
    }
}
