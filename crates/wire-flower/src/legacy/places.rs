//! Who a connection takes part as. These clients have no key and no name, so each takes a place (`client-1`, `client-2`, …) for as long
//! as it is connected, or the place of a name that it gives as one of its properties.
//!
//! Invariant: a place is taken by one connection at a time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use sheaf_domain::SiteName;
use tokio::sync::watch;

/// The places of one listener.
#[derive(Debug)]
pub(crate) struct Places {
    taken: Mutex<BTreeSet<SiteName>>,
    most: usize,
    freed: watch::Sender<u64>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    pub(crate) name: SiteName,
}

/// What the names of places begin with.
const PREFIX: &str = "client-";

impl Places {
    pub(crate) fn new(most: usize) -> Arc<Places> {
        Arc::new(Places { taken: Mutex::default(), most, freed: watch::Sender::new(0) })
    }

    /// The first of `wanted` that is free, else the free place of the lowest number; none when all are taken.
    pub(crate) fn take(self: &Arc<Places>, wanted: &[SiteName]) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() >= self.most {
            return None;
        }
        let numbered = (1..=self.most).filter_map(|number| SiteName::new(format!("{PREFIX}{number}")).ok());
        let name = wanted.iter().cloned().chain(numbered).find(|name| !taken.contains(name))?;
        taken.insert(name.clone());
        Some(Place { places: Arc::clone(self), name })
    }

    /// The place of this name, if it is free.
    pub(crate) fn take_named(self: &Arc<Places>, name: &SiteName) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let free = taken.len() < self.most && taken.insert(name.clone());
        free.then(|| Place { places: Arc::clone(self), name: name.clone() })
    }

    /// Whether a name is that of a numbered place.
    pub(crate) fn is_numbered(name: &SiteName) -> bool {
        let number = name.as_str().strip_prefix(PREFIX);
        number.is_some_and(|number| number.parse::<usize>().is_ok())
    }

    /// Changes whenever a place becomes free.
    pub(crate) fn freed(&self) -> watch::Receiver<u64> {
        self.freed.subscribe()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
        self.places.freed.send_modify(|freed| *freed += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> SiteName {
        SiteName::new(name).unwrap()
    }

    #[test]
    fn the_lowest_free_place_is_taken_and_given_back() {
        let places = Places::new(3);
        let first = places.take(&[]).unwrap();
        let second = places.take(&[name("client-1")]).unwrap();
        assert_eq!((first.name.as_str(), second.name.as_str()), ("client-1", "client-2"));
        drop(first);
        let wanted = places.take(&[name("client-2"), name("client-3")]).unwrap();
        let lowest = places.take(&[]).unwrap();
        assert_eq!((wanted.name.as_str(), lowest.name.as_str()), ("client-3", "client-1"));
        assert!(places.take(&[]).is_none() && places.take_named(&name("berlin")).is_none(), "three are all");
    }

    #[test]
    fn a_name_is_taken_once() {
        let places = Places::new(3);
        let berlin = places.take_named(&name("berlin")).unwrap();
        assert!(places.take_named(&name("berlin")).is_none());
        drop(berlin);
        assert!(places.take_named(&name("berlin")).is_some());
    }

    #[test]
    fn only_numbered_places_are_for_anybody() {
        assert!(Places::is_numbered(&name("client-12")));
        for other in ["berlin", "client-x", "client-"] {
            assert!(SiteName::new(other).is_err() || !Places::is_numbered(&name(other)), "{other}");
        }
    }
}
