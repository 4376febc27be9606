//! Flows that must end.

use std::collections::BTreeSet;
use std::mem;
use std::net::IpAddr;

use netpol_core::model::EndpointId;
use netpol_core::{DataplaneError, Delta, Program};

use crate::holders::Holders;

/// The flows that must end: those of addresses that changed hands, as far as this process knows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EndingFlows {
    /// Who had which address by the last update.
    holders: Holders,
    /// The addresses whose flows must still be forgotten.
    ended: BTreeSet<IpAddr>,
}

impl EndingFlows {
    /// Notes that endpoints with these addresses were isolated.
    pub fn isolated(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.ended.extend(addresses);
    }

    /// Notes that a program is in force, of which these endpoints were isolated.
    pub fn enforced(&mut self, program: &Program, isolated: &[(EndpointId, DataplaneError)]) {
        let before = mem::replace(&mut self.holders, Holders::of(program, isolated));
        self.ended.append(&mut before.ended_by(&self.holders));
    }

    /// Notes that a delta is in force, and that no endpoint of its program was isolated.
    pub fn advanced(&mut self, delta: &Delta) {
        self.ended.append(&mut self.holders.advance(delta));
    }

    /// Lets `forget` forget all flows of these addresses, and returns how many those were. After an error, the next call
    /// has the same addresses, and more.
    ///
    /// # Errors
    ///
    /// What `forget` returns. Flows that must end may go on then: the caller must not call that a success.
    pub fn end<E>(
        &mut self,
        forget: impl FnOnce(&BTreeSet<IpAddr>) -> Result<u64, E>,
    ) -> Result<u64, E> {
        if self.ended.is_empty() {
            return Ok(0);
        }
        let forgotten = forget(&self.ended)?;
        self.ended.clear();
        Ok(forgotten)
    }
}
