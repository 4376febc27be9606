//! Label views: what selectors see, stored once for all endpoints that look the same.
//!
//! A view names the namespace and service account instead of copying their labels. Those are kept twice: as they are, and
//! as they were when the program was last settled, so that it can still be told what used to match.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::hash::BuildHasher;

use super::endpoints::Record;
use super::labels::{LabelSet, LabelStore, Text};
use super::store::{Finder, Id, Relation, Slab};
use crate::labels::Labels;
use crate::model::keys;
use crate::selector::{LabelView, Restriction, Selector};

/// When a question about labels is meant.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Time {
    /// When the program was settled.
    Settled,
    /// Now.
    Now,
}

/// Labels of a namespace or service account; `None` where there is no such object.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inherited {
    now: Option<Id<LabelSet>>,
    settled: Option<Id<LabelSet>>,
}

/// A namespace that exists, or that something is in.
#[derive(Debug)]
pub(super) struct Namespace {
    name: Id<Text>,
    labels: Inherited,
    uses: u32,
}

/// A service account that exists, or that something uses.
#[derive(Debug)]
pub(super) struct Account {
    namespace: Option<Id<Namespace>>,
    name: Id<Text>,
    labels: Inherited,
    uses: u32,
}

/// What selectors see. Equal views are one view.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct ViewKey {
    pub(super) own: Id<LabelSet>,
    pub(super) namespace: Option<Id<Namespace>>,
    pub(super) account: Option<Id<Account>>,
    pub(super) orchestrator: Option<Id<Text>>,
}

/// A view and how many refer to it.
#[derive(Debug)]
pub(super) struct View {
    key: ViewKey,
    uses: u32,
    /// An endpoint that looks like this. Mostly it is the only one.
    endpoint: Option<Id<Record>>,
    /// How many others do.
    others: u32,
}

/// All views, and what they are made of.
#[derive(Default)]
pub(super) struct Views {
    pub(super) labels: LabelStore,
    namespaces: Slab<Namespace>,
    namespaces_by_name: Finder<Namespace>,
    namespaces_by_labels: Relation<LabelSet, Namespace>,
    accounts: Slab<Account>,
    accounts_by_name: Finder<Account>,
    accounts_by_namespace: Relation<Namespace, Account>,
    views: Slab<View>,
    views_by_key: Finder<View>,
    views_by_labels: Relation<LabelSet, View>,
    views_by_namespace: Relation<Namespace, View>,
    other_endpoints: Relation<View, Record>,
    /// Whose labels are not what they were when the program was settled.
    changed_namespaces: BTreeSet<Id<Namespace>>,
    changed_accounts: BTreeSet<Id<Account>>,
}

/// A view as selectors see it.
pub(super) struct Seen<'a> {
    views: &'a Views,
    key: ViewKey,
    time: Time,
}

impl Inherited {
    pub(super) const fn at(&self, time: Time) -> Option<Id<LabelSet>> {
        match time {
            Time::Now => self.now,
            Time::Settled => self.settled,
        }
    }
}

/// Namespaces and service accounts.
impl Views {
    /// Returns a namespace, counted.
    pub(super) fn namespace(&mut self, name: &str) -> Id<Namespace> {
        let name = self.labels.text(name);
        let hash = self.namespaces_by_name.hash(&name);
        let found = self.namespaces_by_name.find(hash, |id| self.namespaces[id].name == name);
        if let Some(id) = found {
            self.labels.drop_text(name);
            return self.keep_namespace(id);
        }
        let record = Namespace { name, labels: Inherited::default(), uses: 1 };
        let id = self.namespaces.insert(record);
        let Self { namespaces, namespaces_by_name, .. } = self;
        let hasher = namespaces_by_name.hasher().clone();
        namespaces_by_name.insert(hash, id, |id| hasher.hash_one(namespaces[id].name));
        id
    }

    pub(super) fn find_namespace(&self, name: &str) -> Option<Id<Namespace>> {
        let name = self.labels.find_text(name)?;
        let hash = self.namespaces_by_name.hash(&name);
        self.namespaces_by_name.find(hash, |id| self.namespaces[id].name == name)
    }

    pub(super) fn namespace_name(&self, id: Id<Namespace>) -> &str {
        self.labels.str(self.namespaces[id].name)
    }

    pub(super) fn keep_namespace(&mut self, id: Id<Namespace>) -> Id<Namespace> {
        self.namespaces[id].uses += 1;
        id
    }

    pub(super) fn drop_namespace(&mut self, id: Id<Namespace>) {
        let record = &mut self.namespaces[id];
        record.uses -= 1;
        if record.uses > 0 {
            return;
        }
        let Self { namespaces, namespaces_by_name, .. } = self;
        let hasher = namespaces_by_name.hasher().clone();
        let rehash = |id| hasher.hash_one(namespaces[id].name);
        namespaces_by_name.remove(rehash(id), id, rehash);
        if let Some(record) = namespaces.remove(id) {
            self.labels.drop_text(record.name);
        }
    }

    /// Gives a namespace labels; `None` if there is no such object any more. Returns whether there was one.
    pub(super) fn label_namespace(&mut self, id: Id<Namespace>, labels: Option<&Labels>) -> bool {
        let labels = labels.map(|it| self.labels.set(it));
        let before = core::mem::replace(&mut self.namespaces[id].labels.now, labels);
        if let Some(before) = before {
            self.namespaces_by_labels.remove(before, id);
            self.labels.drop_set(before);
        }
        if let Some(labels) = labels {
            self.namespaces_by_labels.insert(labels, id);
        }
        let is_object = u32::from(labels.is_some());
        self.namespaces[id].uses += is_object;
        if before != labels && self.changed_namespaces.insert(id) {
            self.keep_namespace(id);
        }
        if before.is_some() {
            self.drop_namespace(id);
        }
        before.is_some()
    }

    /// Returns a service account, counted.
    pub(super) fn account(&mut self, namespace: Option<Id<Namespace>>, name: &str) -> Id<Account> {
        let name = self.labels.text(name);
        let hash = self.accounts_by_name.hash(&(namespace, name));
        let is_it = |id| {
            let account: &Account = &self.accounts[id];
            (account.namespace, account.name) == (namespace, name)
        };
        if let Some(id) = self.accounts_by_name.find(hash, is_it) {
            self.labels.drop_text(name);
            self.accounts[id].uses += 1;
            return id;
        }
        let record = Account { namespace, name, labels: Inherited::default(), uses: 1 };
        let id = self.accounts.insert(record);
        if let Some(namespace) = namespace {
            self.keep_namespace(namespace);
            self.accounts_by_namespace.insert(namespace, id);
        }
        let Self { accounts, accounts_by_name, .. } = self;
        let hasher = accounts_by_name.hasher().clone();
        let rehash = |id| {
            let account: &Account = &accounts[id];
            hasher.hash_one((account.namespace, account.name))
        };
        accounts_by_name.insert(hash, id, rehash);
        id
    }

    pub(super) fn account_name(&self, id: Id<Account>) -> &str {
        self.labels.str(self.accounts[id].name)
    }

    pub(super) fn drop_account(&mut self, id: Id<Account>) {
        let record = &mut self.accounts[id];
        record.uses -= 1;
        if record.uses > 0 {
            return;
        }
        let Self { accounts, accounts_by_name, .. } = self;
        let hasher = accounts_by_name.hasher().clone();
        let rehash = |id| {
            let account: &Account = &accounts[id];
            hasher.hash_one((account.namespace, account.name))
        };
        accounts_by_name.remove(rehash(id), id, rehash);
        let Some(record) = accounts.remove(id) else { return };
        self.labels.drop_text(record.name);
        if let Some(namespace) = record.namespace {
            self.accounts_by_namespace.remove(namespace, id);
            self.drop_namespace(namespace);
        }
    }

    /// Gives a service account labels; `None` if there is no such object any more. Returns whether there was one.
    pub(super) fn label_account(&mut self, id: Id<Account>, labels: Option<&Labels>) -> bool {
        let labels = labels.map(|it| self.labels.set(it));
        let before = core::mem::replace(&mut self.accounts[id].labels.now, labels);
        if let Some(before) = before {
            self.labels.drop_set(before);
        }
        let is_object = u32::from(labels.is_some());
        self.accounts[id].uses += is_object;
        if before != labels && self.changed_accounts.insert(id) {
            self.accounts[id].uses += 1;
        }
        if before.is_some() {
            self.drop_account(id);
        }
        before.is_some()
    }

    /// Returns the service accounts of a namespace, whether or not they exist.
    pub(super) fn accounts_in(&self, namespace: Id<Namespace>) -> Vec<Id<Account>> {
        self.accounts_by_namespace.of(namespace).collect()
    }

    /// Returns the namespaces that exist, with their labels, in no particular order.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = (&str, Labels)> {
        self.namespaces.iter().filter_map(|(_, it)| {
            let labels = self.labels.labels(it.labels.now?).collect();
            Some((self.labels.str(it.name), labels))
        })
    }

    /// Returns the service accounts that exist: namespace, name and labels, in no particular order.
    pub(super) fn accounts(&self) -> impl Iterator<Item = (&str, &str, Labels)> {
        self.accounts.iter().filter_map(|(_, it)| {
            let labels = self.labels.labels(it.labels.now?).collect();
            Some((self.namespace_name(it.namespace?), self.labels.str(it.name), labels))
        })
    }
}

/// Views.
impl Views {
    /// Returns the view with this key, counted. The parts of the key, which are counted, are handed over.
    pub(super) fn view(&mut self, key: ViewKey) -> Id<View> {
        let hash = self.views_by_key.hash(&key);
        if let Some(id) = self.views_by_key.find(hash, |id| self.views[id].key == key) {
            self.drop_key(key);
            return self.keep(id);
        }
        let id = self.views.insert(View { key, uses: 1, endpoint: None, others: 0 });
        self.views_by_labels.insert(key.own, id);
        if let Some(namespace) = key.namespace {
            self.views_by_namespace.insert(namespace, id);
        }
        let Self { views, views_by_key, .. } = self;
        let hasher = views_by_key.hasher().clone();
        views_by_key.insert(hash, id, |id| hasher.hash_one(views[id].key));
        id
    }

    /// Returns the view of an object without service account and orchestrator, counted.
    pub(super) fn view_of(&mut self, labels: &Labels, namespace: Option<&str>) -> Id<View> {
        let key = ViewKey {
            own: self.labels.set(labels),
            namespace: namespace.map(|it| self.namespace(it)),
            account: None,
            orchestrator: None,
        };
        self.view(key)
    }

    pub(super) fn key(&self, id: Id<View>) -> ViewKey {
        self.views[id].key
    }

    pub(super) fn keep(&mut self, id: Id<View>) -> Id<View> {
        self.views[id].uses += 1;
        id
    }

    pub(super) fn drop_view(&mut self, id: Id<View>) {
        let view = &mut self.views[id];
        view.uses -= 1;
        if view.uses > 0 {
            return;
        }
        let key = view.key;
        let Self { views, views_by_key, .. } = self;
        let hasher = views_by_key.hasher().clone();
        let rehash = |id| hasher.hash_one(views[id].key);
        views_by_key.remove(rehash(id), id, rehash);
        views.remove(id);
        self.views_by_labels.remove(key.own, id);
        if let Some(namespace) = key.namespace {
            self.views_by_namespace.remove(namespace, id);
        }
        self.drop_key(key);
    }

    fn drop_key(&mut self, key: ViewKey) {
        self.labels.drop_set(key.own);
        key.account.into_iter().for_each(|it| self.drop_account(it));
        key.namespace.into_iter().for_each(|it| self.drop_namespace(it));
        key.orchestrator.into_iter().for_each(|it| self.labels.drop_text(it));
    }

    /// Says that an endpoint has a view.
    pub(super) fn attach(&mut self, id: Id<View>, endpoint: Id<Record>) {
        let view = &mut self.views[id];
        if view.endpoint.is_none() {
            view.endpoint = Some(endpoint);
        } else {
            view.others += 1;
            self.other_endpoints.insert(id, endpoint);
        }
    }

    /// Says that an endpoint does not have a view any more.
    pub(super) fn detach(&mut self, id: Id<View>, endpoint: Id<Record>) {
        let view = &mut self.views[id];
        let mut gone = Some(endpoint);
        if view.endpoint == gone {
            gone = if view.others == 0 { None } else { self.other_endpoints.of(id).next() };
            view.endpoint = gone;
        }
        if let Some(gone) = gone {
            view.others -= 1;
            self.other_endpoints.remove(id, gone);
        }
    }

    /// Returns the endpoints with a view.
    pub(super) fn endpoints_of(&self, id: Id<View>) -> impl Iterator<Item = Id<Record>> + '_ {
        let view = &self.views[id];
        let others = (view.others > 0).then(|| self.other_endpoints.of(id));
        view.endpoint.into_iter().chain(others.into_iter().flatten())
    }

    /// Returns a view as selectors see it.
    pub(super) fn seen(&self, id: Id<View>, time: Time) -> Seen<'_> {
        Seen { views: self, key: self.key(id), time }
    }

    /// Returns the labels that a view has from its namespace, and from its service account.
    pub(super) fn inherited(&self, key: ViewKey, time: Time) -> [Option<Id<LabelSet>>; 2] {
        let namespace = key.namespace.and_then(|it| self.namespaces[it].labels.at(time));
        let account = key.account.and_then(|it| self.accounts[it].labels.at(time));
        [namespace, account]
    }

    /// Returns the names of a view's namespace and service account.
    pub(super) fn names(&self, key: ViewKey) -> [Option<Id<Text>>; 2] {
        let namespace = key.namespace.map(|it| self.namespaces[it].name);
        [namespace, key.account.map(|it| self.accounts[it].name)]
    }

    /// Returns the views whose namespace or service account has other labels than when the program was settled.
    pub(super) fn changed(&self) -> BTreeSet<Id<View>> {
        let of_namespace = |it: &Id<Namespace>| self.namespaces[*it].labels;
        let differs = |it: Inherited| it.now != it.settled;
        let namespaces = self.changed_namespaces.iter().filter(|it| differs(of_namespace(it)));
        let in_namespaces = namespaces.flat_map(|it| self.views_by_namespace.of(*it));
        let accounts = self.changed_accounts.iter();
        let accounts = accounts.filter(|it| differs(self.accounts[**it].labels));
        let with_accounts = accounts.flat_map(|&account| {
            let namespace = self.accounts[account].namespace;
            let views = namespace.into_iter().flat_map(|it| self.views_by_namespace.of(it));
            views.filter(move |view| self.views[*view].key.account == Some(account))
        });
        in_namespaces.chain(with_accounts).collect()
    }

    /// Returns whether labels may have changed since the program was settled.
    pub(super) fn has_changed(&self) -> bool {
        !self.changed_namespaces.is_empty() || !self.changed_accounts.is_empty()
    }

    /// Says that the program is settled with the labels as they are now.
    pub(super) fn settle(&mut self) {
        for id in core::mem::take(&mut self.changed_namespaces) {
            let labels = &mut self.namespaces[id].labels;
            let before = core::mem::replace(&mut labels.settled, labels.now);
            let now = labels.now;
            now.map(|it| self.labels.keep_set(it));
            before.into_iter().for_each(|it| self.labels.drop_set(it));
            self.drop_namespace(id);
        }
        for id in core::mem::take(&mut self.changed_accounts) {
            let labels = &mut self.accounts[id].labels;
            let before = core::mem::replace(&mut labels.settled, labels.now);
            let now = labels.now;
            now.map(|it| self.labels.keep_set(it));
            before.into_iter().for_each(|it| self.labels.drop_set(it));
            self.drop_account(id);
        }
    }

    /// Returns the views that a selector selects now. It looks at those that meet the most selective of the selector's
    /// restrictions, and at all only if there is none.
    pub(super) fn selected_by(&self, selector: &Selector) -> Vec<Id<View>> {
        let Some(restrictions) = selector.restrictions() else { return Vec::new() };
        let mut best: Option<(usize, &str, &Restriction<'_>)> = None;
        for (&key, restriction) in &restrictions {
            let limit = best.map_or(usize::MAX, |(size, ..)| size);
            let size = self.candidates(key, restriction).map(|it| it.take(limit).count());
            if let Some(size) = size.filter(|size| *size < limit) {
                best = Some((size, key, restriction));
            }
        }
        let selects = |id: &Id<View>| selector.matches(&self.seen(*id, Time::Now));
        match best.and_then(|(_, key, restriction)| self.candidates(key, restriction)) {
            Some(candidates) => candidates.filter(selects).collect(),
            None => self.views.iter().map(|(id, _)| id).filter(selects).collect(),
        }
    }

    /// Returns the views that meet a restriction, `None` if they cannot be found by it.
    fn candidates(
        &self,
        key: &str,
        restriction: &Restriction<'_>,
    ) -> Option<Box<dyn Iterator<Item = Id<View>> + '_>> {
        let namespace_name = [keys::NAMESPACE_PREFIX, keys::NAME].concat();
        if key == keys::NAMESPACE || key == namespace_name {
            let Restriction::OneOf(names) = restriction else { return None };
            let found: Vec<_> = names.iter().filter_map(|it| self.find_namespace(it)).collect();
            return Some(Box::new(found.into_iter().flat_map(|it| self.views_by_namespace.of(it))));
        }
        if matches!(key, keys::SERVICE_ACCOUNT | keys::ORCHESTRATOR)
            || key.starts_with(keys::SERVICE_ACCOUNT_PREFIX)
        {
            return None;
        }
        if let Some(key) = key.strip_prefix(keys::NAMESPACE_PREFIX) {
            let sets = self.label_sets(key, restriction)?;
            let namespaces = sets.flat_map(|it| self.namespaces_by_labels.of(it));
            return Some(Box::new(namespaces.flat_map(|it| self.views_by_namespace.of(it))));
        }
        let sets = self.label_sets(key, restriction)?;
        Some(Box::new(sets.flat_map(|it| self.views_by_labels.of(it))))
    }

    fn label_sets(
        &self,
        key: &str,
        restriction: &Restriction<'_>,
    ) -> Option<Box<dyn Iterator<Item = Id<LabelSet>> + '_>> {
        match restriction {
            Restriction::Absent => None,
            Restriction::Present => {
                let key = self.labels.find_text(key);
                Some(Box::new(key.into_iter().flat_map(|it| self.labels.sets_with_key(it))))
            }
            Restriction::OneOf(values) => {
                let pairs = values.iter().filter_map(|it| self.labels.find_pair(key, it));
                let pairs: Vec<_> = pairs.collect();
                Some(Box::new(pairs.into_iter().flat_map(|it| self.labels.sets_with(it))))
            }
        }
    }

    /// Returns how many of everything there are.
    pub(super) fn counts(&self) -> [usize; 8] {
        let [.., sets, pairs, postings] = self.labels.counts();
        let parents = self.namespaces.len() + self.accounts.len();
        let parents_by = self.namespaces_by_labels.len() + self.accounts_by_namespace.len();
        let views_by =
            self.views_by_labels.len() + self.views_by_namespace.len() + self.other_endpoints.len();
        let changed = self.changed_namespaces.len() + self.changed_accounts.len();
        [sets, pairs, postings, parents, parents_by, self.views.len(), views_by, changed]
    }
}

impl LabelView for Seen<'_> {
    /// The same keys as those of [`EndpointLabels`](crate::model::EndpointLabels), with the same precedence.
    fn value(&self, key: &str) -> Option<&str> {
        match key {
            keys::NAMESPACE => self.namespace_name(),
            keys::ORCHESTRATOR => self.key.orchestrator.map(|it| self.views.labels.str(it)),
            keys::SERVICE_ACCOUNT => self.account_name(),
            _ => {
                if let Some(rest) = key.strip_prefix(keys::NAMESPACE_PREFIX) {
                    if rest == keys::NAME {
                        return self.namespace_name();
                    }
                    let labels = self.views.namespaces[self.key.namespace?].labels;
                    self.views.labels.value(labels.at(self.time)?, rest)
                } else if let Some(rest) = key.strip_prefix(keys::SERVICE_ACCOUNT_PREFIX) {
                    if rest == keys::NAME {
                        return self.account_name();
                    }
                    let labels = self.views.accounts[self.key.account?].labels;
                    self.views.labels.value(labels.at(self.time)?, rest)
                } else {
                    self.views.labels.value(self.key.own, key)
                }
            }
        }
    }
}

impl<'a> Seen<'a> {
    fn namespace_name(&self) -> Option<&'a str> {
        self.key.namespace.map(|it| self.views.namespace_name(it))
    }

    fn account_name(&self) -> Option<&'a str> {
        self.key.account.map(|it| self.views.account_name(it))
    }
}
