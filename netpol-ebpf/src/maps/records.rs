//! Records of endpoints, and the words that publish them.

use std::collections::{BTreeMap, BTreeSet};

use netpol_ebpf_abi::{self as abi, OwnKey, maps};
use zerocopy::{FromBytes, IntoBytes};

use super::{Maps, reading, writing};
use crate::error::EbpfError;

impl Maps {
    /// Returns the interfaces that have a record in force, and its number.
    pub(crate) fn published(&self) -> Result<BTreeMap<u32, u32>, EbpfError> {
        let mut published: BTreeMap<u32, u32> =
            self.words.iter().map(|(_, word)| abi::published(word)).collect();
        for key in self.spilled()? {
            if let Some(record) = self.spilled_record(key)? {
                published.insert(key, record);
            }
        }
        Ok(published)
    }

    /// Returns a record.
    pub(crate) fn record(&self, number: u32) -> Result<abi::Endpoint, EbpfError> {
        let bytes = self
            .records
            .get(&number.to_ne_bytes())
            .map_err(|source| reading(maps::ENDPOINTS, source))?;
        Ok(bytes.and_then(|bytes| abi::Endpoint::read_from_bytes(&bytes).ok()).unwrap_or_default())
    }

    /// Puts a record in force for an interface, under a number that nothing in force has.
    pub(crate) fn publish(
        &self,
        interface: u32,
        number: u32,
        record: &abi::Endpoint,
    ) -> Result<(), EbpfError> {
        self.records
            .set(&number.to_ne_bytes(), record.as_bytes())
            .map_err(|source| writing(maps::ENDPOINTS, source))?;
        let (owner, _) = abi::published(self.words.get(slot(interface)));
        let is_free = owner == 0 || owner == interface;
        if is_free && self.spilled_record(interface)?.is_none() {
            self.words.set(slot(interface), abi::publication(interface, number));
            return Ok(());
        }
        self.spilled
            .set(&interface.to_ne_bytes(), &number.to_ne_bytes())
            .map_err(|source| writing(maps::SPILLED, source))
    }

    /// Has an interface be without a record. Its packets are dropped as long as a program is attached.
    pub(crate) fn withdraw(&self, interface: u32) -> Result<(), EbpfError> {
        let (owner, _) = abi::published(self.words.get(slot(interface)));
        if owner == interface {
            self.words.set(slot(interface), 0);
        }
        self.spilled
            .remove(&interface.to_ne_bytes())
            .map_err(|source| writing(maps::SPILLED, source))
    }

    /// Notes the addresses of an endpoint that has several of a family.
    pub(crate) fn add_own(&self, endpoint: u32, addresses: &[[u32; 4]]) -> Result<(), EbpfError> {
        for &address in addresses {
            let key = OwnKey { endpoint, address };
            self.own
                .set(key.as_bytes(), &1_u32.to_ne_bytes())
                .map_err(|source| writing(maps::OWN, source))?;
        }
        Ok(())
    }

    /// Returns the noted addresses of all endpoints.
    pub(crate) fn own(&self) -> Result<BTreeSet<(u32, [u32; 4])>, EbpfError> {
        let keys = self.own.keys().map_err(|source| reading(maps::OWN, source))?;
        let keys =
            keys.chunks(self.own.key_size()).filter_map(|key| OwnKey::read_from_bytes(key).ok());
        Ok(keys.map(|key| (key.endpoint, key.address)).collect())
    }

    /// Removes all noted addresses but these.
    pub(crate) fn keep_own(&self, used: &BTreeSet<(u32, [u32; 4])>) -> Result<(), EbpfError> {
        for (endpoint, address) in self.own()?.difference(used).copied() {
            let key = OwnKey { endpoint, address };
            self.own.remove(key.as_bytes()).map_err(|source| writing(maps::OWN, source))?;
        }
        Ok(())
    }

    fn spilled(&self) -> Result<Vec<u32>, EbpfError> {
        let keys = self.spilled.keys().map_err(|source| reading(maps::SPILLED, source))?;
        Ok(keys
            .chunks(self.spilled.key_size())
            .filter_map(|key| u32::read_from_bytes(key).ok())
            .collect())
    }

    fn spilled_record(&self, interface: u32) -> Result<Option<u32>, EbpfError> {
        let record = self
            .spilled
            .get(&interface.to_ne_bytes())
            .map_err(|source| reading(maps::SPILLED, source))?;
        Ok(record.and_then(|bytes| u32::read_from_bytes(&bytes).ok()))
    }
}

/// Returns the index of the word that an interface has, or shares.
const fn slot(interface: u32) -> u32 {
    interface & (abi::INTERFACES - 1)
}
