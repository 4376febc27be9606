//! The maps. Sizes are defaults; the loader sets those of its configuration.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use netpol_ebpf_abi as abi;
use netpol_ebpf_abi::{
    AddressKey4, AddressKey6, Endpoint, Event, Flow, FlowKey4, FlowKey6, Fragment, FragmentKey,
    Leaf, OwnKey, PortKey, Row, RowKey, Statistic,
};

const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub static INTERFACES: Array<u64, { abi::INTERFACES as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();
#[btf_map]
pub static SPILLED: HashMap<u32, u32, 1024, ON_DEMAND> = HashMap::new();
#[btf_map]
pub static ENDPOINTS: Array<Endpoint, 1024> = Array::new();
#[btf_map]
pub static OWN: HashMap<OwnKey, u32, 1024, ON_DEMAND> = HashMap::new();
#[btf_map]
pub static ADDRESSES4: HashMap<AddressKey4, u32, 1024, ON_DEMAND> = HashMap::new();
#[btf_map]
pub static ADDRESSES6: HashMap<AddressKey6, u32, 1024, ON_DEMAND> = HashMap::new();
#[btf_map]
pub static PREFIXES4: LpmTrie<AddressKey4, u32, 1024> = LpmTrie::new();
#[btf_map]
pub static PREFIXES6: LpmTrie<AddressKey6, u32, 1024> = LpmTrie::new();
#[btf_map]
pub static ROWS: HashMap<RowKey, Row, 1024, ON_DEMAND> = HashMap::new();
#[btf_map]
pub static PORTS: LpmTrie<PortKey, Leaf, 1024> = LpmTrie::new();
#[btf_map]
pub static FLOWS4: LruHashMap<FlowKey4, Flow, 1024> = LruHashMap::new();
#[btf_map]
pub static FLOWS6: LruHashMap<FlowKey6, Flow, 1024> = LruHashMap::new();
#[btf_map]
pub static FRAGMENTS: LruHashMap<FragmentKey, Fragment, 1024> = LruHashMap::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, 1024> = PerCpuArray::new();
#[btf_map]
pub static STATISTICS: PerCpuArray<u64, { Statistic::ALL.len() }> = PerCpuArray::new();
#[btf_map]
pub static EVENTS: RingBuf<Event, 65_536> = RingBuf::new();
#[btf_map]
pub static RATES: Array<u64, { abi::RATES as usize }> = Array::new();
#[btf_map]
pub static NAMES: HashMap<[u32; 2], [u8; 16], 1024, ON_DEMAND> = HashMap::new();
#[btf_map]
pub static NEXT: Array<u32, 1> = Array::new();
