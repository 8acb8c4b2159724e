//! Which objects there are, and which holds keep them.
//!
//! Pure bookkeeping, shared by the backends; `P` is where the bytes are. Invariant: an object is in the table exactly
//! while at least one hold lists it, and `keepers` counts those holds.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use sheaf_domain::Digest;

use crate::{Error, Hold};

/// A stored object.
#[derive(Debug)]
pub(crate) struct Object<P> {
    pub(crate) place: P,
    pub(crate) len: u64,
    keepers: usize,
}

/// The objects and holds of one store.
#[derive(Debug)]
pub(crate) struct Table<P> {
    objects: HashMap<Digest, Object<P>>,
    holds: BTreeMap<Hold, BTreeSet<Digest>>,
    stored_bytes: u64,
}

impl<P> Default for Table<P> {
    fn default() -> Table<P> {
        Table { objects: HashMap::new(), holds: BTreeMap::new(), stored_bytes: 0 }
    }
}

impl<P> Table<P> {
    pub(crate) fn object(&self, object: &Digest) -> Option<&Object<P>> {
        self.objects.get(object)
    }

    pub(crate) fn contains(&self, object: &Digest) -> bool {
        self.objects.contains_key(object)
    }

    /// The object, when `offset` and `len` lie inside it.
    pub(crate) fn range(&self, object: &Digest, offset: u64, len: u64) -> Result<&Object<P>, Error> {
        let found = self.object(object).ok_or(Error::NotFound { object: *object })?;
        match offset.checked_add(len) {
            Some(end) if end <= found.len => Ok(found),
            _ => Err(Error::OutOfRange { object: *object, offset, len, object_len: found.len }),
        }
    }

    /// Adds an object kept by `hold`; when it is there already only the hold is added and `place` comes back.
    pub(crate) fn put(&mut self, object: Digest, place: P, len: u64, hold: &Hold) -> Option<P> {
        let copy = match self.objects.entry(object) {
            Entry::Occupied(_) => Some(place),
            Entry::Vacant(entry) => {
                entry.insert(Object { place, len, keepers: 0 });
                self.stored_bytes += len;
                None
            }
        };
        self.hold(&object, hold);
        copy
    }

    /// Adds a hold; `false` when the object is not there.
    pub(crate) fn hold(&mut self, object: &Digest, hold: &Hold) -> bool {
        let Some(found) = self.objects.get_mut(object) else { return false };
        if self.holds.entry(hold.clone()).or_default().insert(*object) {
            found.keepers += 1;
        }
        true
    }

    pub(crate) fn is_held_by(&self, object: &Digest, hold: &Hold) -> bool {
        self.holds.get(hold).is_some_and(|objects| objects.contains(object))
    }

    pub(crate) fn has_hold(&self, hold: &Hold) -> bool {
        self.holds.contains_key(hold)
    }

    /// Ends a hold; returns the objects that nothing keeps any more.
    pub(crate) fn release(&mut self, hold: &Hold) -> Vec<Object<P>> {
        let mut freed = Vec::new();
        for digest in self.holds.remove(hold).unwrap_or_default() {
            let Some(object) = self.objects.get_mut(&digest) else { continue };
            object.keepers -= 1;
            if object.keepers == 0
                && let Some(object) = self.objects.remove(&digest)
            {
                self.stored_bytes -= object.len;
                freed.push(object);
            }
        }
        freed
    }

    pub(crate) fn held(&self, hold: &Hold) -> Vec<(Digest, u64)> {
        let objects = self.holds.get(hold).into_iter().flatten();
        objects.filter_map(|digest| Some((*digest, self.objects.get(digest)?.len))).collect()
    }

    /// All holds with the objects they keep, in order.
    pub(crate) fn holds(&self) -> impl Iterator<Item = (&Hold, &BTreeSet<Digest>)> {
        self.holds.iter()
    }

    /// How many (hold, object) pairs there are.
    pub(crate) fn pairs(&self) -> usize {
        self.holds.values().map(BTreeSet::len).sum()
    }

    /// The same table with every place replaced.
    pub(crate) fn try_map<Q, E>(self, mut place: impl FnMut(P, u64) -> Result<Q, E>) -> Result<Table<Q>, E> {
        let mut objects = HashMap::with_capacity(self.objects.len());
        for (digest, object) in self.objects {
            let place = place(object.place, object.len)?;
            objects.insert(digest, Object { place, len: object.len, keepers: object.keepers });
        }
        Ok(Table { objects, holds: self.holds, stored_bytes: self.stored_bytes })
    }

    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    pub(crate) fn objects(&self) -> u64 {
        self.objects.len() as u64
    }
}
