//! Who reaches whom.

use alloc::borrow::Cow;
use core::net::IpAddr;

use super::classes::{Class, Classes};
use super::state::{Kind, Pool, State, compile};
use super::traffic::Traffic;
use super::{AnalysisError, flow_with};
use crate::dataplane::Capabilities;
use crate::flow::{Direction, Flow};
use crate::model::Inputs;
use crate::verdict::Verdict;

/// What policy allows between all addresses of a cluster, by class.
#[derive(Clone, Debug)]
pub struct Reachability {
    classes: Classes<Kind>,
    state: State,
    pool: Pool,
}

/// What policy allows from the addresses of one class to those of another. See [`analysis`](super) for what it is not asked
/// about.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Cell<'a> {
    /// What may leave the source.
    pub egress: &'a Traffic,
    /// What may enter the destination.
    pub ingress: &'a Traffic,
    source: IpAddr,
    destination: IpAddr,
}

/// Returns what the policies of a cluster allow between all addresses.
///
/// Cost: the cluster is compiled, as if one node had all endpoints. Cells are put together when they are asked for.
///
/// ```
/// use netpol_core::Capabilities;
/// use netpol_core::analysis::reachability;
/// use netpol_core::eval::Judge;
/// use netpol_core::model::{Endpoint, Inputs, Policy, PolicyKey};
/// use netpol_core::Verdict;
///
/// let mut inputs = Inputs::default();
/// for (name, address) in [("db", "10.0.0.3"), ("web", "10.0.0.2")] {
///     let mut pod = Endpoint::pod("shop", name);
///     pod.labels = [("app", name)].into_iter().collect();
///     pod.addresses = vec![address.parse()?];
///     inputs.upsert(pod);
/// }
/// let mut closed = Policy::new(PolicyKey::kubernetes("shop", "closed"), "app == 'db'".parse()?);
/// closed.ingress = Some(Vec::new());
/// inputs.upsert(closed);
///
/// let capabilities = Capabilities::all();
/// let reachability = reachability(&inputs, &capabilities)?;
/// let class = |address: &str| reachability.class_of(address.parse().unwrap()).unwrap();
/// let cell = reachability.cell(class("10.0.0.2"), class("10.0.0.3")).unwrap();
/// assert_eq!(cell.allowed().to_string(), "nothing");
///
/// // Every cell can be explained: the judge says why about a flow that stands for it.
/// let flow = cell.example(Verdict::Deny).unwrap();
/// let judgement = Judge::new(&inputs, &capabilities).evaluate(&flow).enforced;
/// assert_eq!(
///     judgement.ingress.to_string(),
///     "deny: no rule matched in tier `default`; asked: KubernetesNetworkPolicy shop/closed"
/// );
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`AnalysisError`] if the rules in force for an endpoint cannot be analysed. Nothing is left out.
pub fn reachability(
    inputs: &Inputs,
    capabilities: &Capabilities,
) -> Result<Reachability, AnalysisError> {
    let mut pool = Pool::new();
    let state = State::of(&compile(inputs, capabilities)?, &mut pool)?;
    let classes = Classes::of(&[&state], |address| state.kind(address));
    Ok(Reachability { classes, state, pool })
}

impl Reachability {
    /// Returns the classes: IPv4 before IPv6, those of endpoints before addresses that no endpoint has. An address is in
    /// one class.
    #[must_use]
    pub fn classes(&self) -> &[Class] {
        &self.classes.all
    }

    /// Returns the index of the class that an address is in.
    #[must_use]
    pub fn class_of(&self, address: IpAddr) -> Option<usize> {
        self.classes.of_address(address)
    }

    /// Returns what is allowed from a class to a class, by their indexes. `None` if nothing can be sent: they are of different
    /// families, or all that is in them is one endpoint.
    #[must_use]
    pub fn cell(&self, from: usize, to: usize) -> Option<Cell<'_>> {
        let (source, destination) = (self.classes.kinds.get(from)?, self.classes.kinds.get(to)?);
        let [first, second] = self.classes.examples(from, to)?;
        let is_one = first == second && self.state.owner(first).is_some();
        if source.family != destination.family
            || is_one
            || self.state.are_siblings(source, destination)
        {
            return None;
        }
        let half =
            |subject, direction, remote| self.pool.get(self.state.half(subject, direction, remote));
        Some(Cell {
            egress: half(source, Direction::Egress, destination),
            ingress: half(destination, Direction::Ingress, source),
            source: first,
            destination: second,
        })
    }
}

impl<'a> Cell<'a> {
    /// Returns what both ends allow.
    #[must_use]
    pub fn allowed(&self) -> Cow<'a, Traffic> {
        if self.egress.is_everything() || self.ingress.is_nothing() {
            Cow::Borrowed(self.ingress)
        } else if self.ingress.is_everything() || self.egress.is_nothing() {
            Cow::Borrowed(self.egress)
        } else {
            Cow::Owned(self.egress.intersection(self.ingress))
        }
    }

    /// Returns a flow between members of the two classes that has this verdict, `None` if none has. The
    /// [judge](crate::eval::Judge) says why.
    #[must_use]
    pub fn example(&self, verdict: Verdict) -> Option<Flow> {
        let allowed = self.allowed();
        let traffic = match verdict {
            Verdict::Allow => allowed,
            Verdict::Deny => Cow::Owned(Traffic::everything().difference(&allowed)),
        };
        flow_with(&traffic, self.source, self.destination).next()
    }
}
