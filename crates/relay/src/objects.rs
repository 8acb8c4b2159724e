//! The objects below letters: which name which, who brought their bytes, and when nobody needs them any more.
//!
//! An object lives while a letter or another living object names it. Its bytes count as a sender's own only when that sender brought
//! them: equal bytes of another are never said to be there.

use std::collections::{HashMap, HashSet};

use sheaf_domain::{Digest, Principal};

use crate::Rejected;
use crate::event::ObjectDraft;

/// An object that nobody needs any more, and who brought its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freed {
    /// The object.
    pub object: Digest,
    /// Those who brought it.
    pub brought_by: Vec<Principal>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Objects {
    table: HashMap<Digest, Object>,
}

#[derive(Debug, Clone)]
struct Object {
    children: Box<[Digest]>,
    /// How many objects and letters name it.
    named_by: u32,
    brought_by: Vec<Principal>,
}

impl Objects {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn children(&self, object: &Digest) -> Option<&[Digest]> {
        self.table.get(object).map(|found| &*found.children)
    }

    /// Whether anybody brought its bytes.
    pub(crate) fn is_there(&self, object: &Digest) -> bool {
        self.table.get(object).is_some_and(|found| !found.brought_by.is_empty())
    }

    pub(crate) fn is_brought_by(&self, object: &Digest, who: &Principal) -> bool {
        self.table.get(object).is_some_and(|found| found.brought_by.contains(who))
    }

    /// Notes who brought an object; `false` when it is not among those that are needed.
    pub(crate) fn bring(&mut self, object: &Digest, who: &Principal) -> bool {
        let Some(found) = self.table.get_mut(object) else { return false };
        if !found.brought_by.contains(who) {
            found.brought_by.push(who.clone());
        }
        true
    }

    /// Whether `drafts` fit: each names only what is known or came before it, and nothing is named differently than before.
    pub(crate) fn check(&self, drafts: &[ObjectDraft]) -> Result<(), Rejected> {
        let mut announced: HashSet<Digest> = HashSet::with_capacity(drafts.len());
        for draft in drafts {
            if let Some(known) = self.table.get(&draft.id)
                && *known.children != *draft.children
            {
                return Err(Rejected::OtherChildren(draft.id));
            }
            let unknown = |child: &&Digest| !announced.contains(*child) && !self.table.contains_key(*child);
            if let Some(child) = draft.children.iter().find(unknown) {
                return Err(Rejected::Dangling { parent: draft.id, child: *child });
            }
            announced.insert(draft.id);
        }
        Ok(())
    }

    /// Takes checked drafts in; those that are known stay as they are.
    pub(crate) fn announce(&mut self, drafts: &[ObjectDraft]) {
        for draft in drafts {
            if self.table.contains_key(&draft.id) {
                continue;
            }
            for child in &draft.children {
                self.name(child);
            }
            let children = draft.children.clone().into_boxed_slice();
            self.table.insert(draft.id, Object { children, named_by: 0, brought_by: Vec::new() });
        }
    }

    pub(crate) fn knows(&self, object: &Digest) -> bool {
        self.table.contains_key(object)
    }

    /// One more names the object.
    pub(crate) fn name(&mut self, object: &Digest) {
        if let Some(found) = self.table.get_mut(object) {
            found.named_by += 1;
        }
    }

    /// One less names the object; what is thereby needed by nobody goes.
    pub(crate) fn unname(&mut self, object: &Digest, freed: &mut Vec<Freed>) {
        let mut unnamed = vec![*object];
        while let Some(next) = unnamed.pop() {
            let Some(found) = self.table.get_mut(&next) else { continue };
            found.named_by = found.named_by.saturating_sub(1);
            if found.named_by > 0 {
                continue;
            }
            if let Some(gone) = self.table.remove(&next) {
                unnamed.extend(gone.children);
                freed.push(Freed { object: next, brought_by: gone.brought_by });
            }
        }
    }

    /// Everything at and below `root`, each once, children before parents.
    pub(crate) fn below(&self, root: &Digest) -> Vec<Digest> {
        let (mut order, mut seen) = (Vec::new(), HashSet::new());
        let mut path = vec![(*root, 0)];
        while let Some((object, child_idx)) = path.pop() {
            let child = self.children(&object).and_then(|children| children.get(child_idx)).copied();
            match child {
                Some(child) => {
                    path.push((object, child_idx + 1));
                    if seen.insert(child) {
                        path.push((child, 0));
                    }
                }
                None => order.push(object),
            }
        }
        order
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self, freed: &mut Vec<Freed>) {
        let gone = self.table.drain();
        freed.extend(gone.map(|(object, found)| Freed { object, brought_by: found.brought_by }));
    }
}
