//! The object that is checked in.

use std::collections::BTreeSet;

use netpol_ebpf_abi::maps;
use object::elf::{FileHeader64, STT_FUNC};
use object::read::elf::{ElfFile, FileHeader};
use object::{LittleEndian, Object, ObjectSection, ObjectSymbol, RelocationTarget, SymbolFlags};

use crate::programs::{OBJECT, Side};

type Elf = ElfFile<'static, FileHeader64<LittleEndian>>;

fn elf() -> Elf {
    Elf::parse(OBJECT).unwrap()
}

/// Returns the names of what the code refers to.
fn referred_to() -> BTreeSet<String> {
    let elf = elf();
    let code =
        elf.sections().filter(|section| matches!(section.name(), Ok(".text" | "classifier")));
    let targets = code.flat_map(|section| section.relocations().collect::<Vec<_>>());
    let name = |(_, relocation): (u64, object::Relocation)| match relocation.target() {
        RelocationTarget::Symbol(symbol) => {
            elf.symbol_by_index(symbol).unwrap().name().unwrap().to_owned()
        }
        other => format!("{other:?}"),
    };
    targets.map(name).collect()
}

/// The compiler makes loops of copies and fills that it does not inline, and the verifier follows each turn.
#[test]
fn nothing_is_called() {
    let names = referred_to();
    assert!(names.contains(maps::ROWS), "{names:?}");
    assert!(names.iter().all(|name| !name.starts_with("mem")), "{names:?}");
    let elf = elf();
    let is_function = |name: &String| {
        let symbol = elf.symbols().find(|symbol| symbol.name() == Ok(name));
        symbol.is_some_and(|it| matches!(it.flags(), SymbolFlags::Elf { st_info, .. } if st_info & 0xf == STT_FUNC))
    };
    assert!(!names.iter().any(is_function), "{names:?}");
}

#[test]
fn it_has_the_programs_and_no_debug_information() {
    let elf = elf();
    assert_eq!(elf.elf_header().e_machine(LittleEndian), object::elf::EM_BPF);
    let names: BTreeSet<_> = elf.symbols().filter_map(|symbol| symbol.name().ok()).collect();
    assert!(Side::BOTH.iter().all(|side| names.contains(side.program())), "{names:?}");
    assert!(elf.section_by_name(".BTF").is_some());
    assert!(elf.section_by_name(".debug_info").is_none());
}
