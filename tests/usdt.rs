//! The tracepoints for tools that look from outside: each is told of in a note, and is a nop.

use std::collections::BTreeSet;

use object::{Object, ObjectSection};
use uthread::Runtime;

/// What a note of type 3 and of the owner `stapsdt` says, as the tools read it
/// (sourceware.org/systemtap/wiki/UserSpaceProbeImplementation).
struct Note {
    address: u64,
    base: u64,
    semaphore: u64,
    provider: String,
    name: String,
    arguments: String,
}

fn notes(mut section: &[u8]) -> Vec<Note> {
    let mut notes = Vec::new();
    while !section.is_empty() {
        let number = |at: usize| u32::from_ne_bytes(section[at..at + 4].try_into().unwrap());
        let [owner, length] = [0, 4].map(|at| number(at).next_multiple_of(4) as usize);
        assert_eq!((number(8), &section[12..12 + owner]), (3, &b"stapsdt\0"[..]));
        let said = &section[12 + owner..][..length];
        let word = |at: usize| u64::from_ne_bytes(said[at..at + 8].try_into().unwrap());
        let mut texts = said[24..].split(|byte| *byte == 0);
        let mut text = || String::from_utf8(texts.next().unwrap().to_vec()).unwrap();
        notes.push(Note {
            address: word(0),
            base: word(8),
            semaphore: word(16),
            provider: text(),
            name: text(),
            arguments: text(),
        });
        section = &section[12 + owner + length..];
    }
    notes
}

#[test]
fn each_tracepoint_is_noted_and_a_nop() {
    // All that makes events is in the program, then.
    Runtime::builder()
        .workers(1)
        .build()
        .unwrap()
        .run(|| uthread::spawn(uthread::yield_now).join())
        .unwrap();
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let program = object::File::parse(&*program).unwrap();
    let noted = program.section_by_name(".note.stapsdt").expect("notes").data().unwrap();
    let base = program.section_by_name(".stapsdt.base").expect("a base").address();

    let mut seen = BTreeSet::new();
    // Others' libraries may have some, too.
    for note in notes(noted).into_iter().filter(|note| note.provider == "uthread") {
        // The linker may have thrown the code away.
        if note.address == 0 {
            continue;
        }
        assert_eq!((note.base, note.semaphore), (base, 0), "{}", note.name);
        let holds = |at: u64, bytes: &[u8]| {
            program
                .sections()
                .any(|s| s.data_range(at, bytes.len() as u64).ok().flatten() == Some(bytes))
        };
        let nop: &[u8] =
            if cfg!(target_arch = "x86_64") { &[0x90] } else { &[0x1f, 0x20, 0x03, 0xd5] };
        assert!(holds(note.address, nop), "{} at {:#x} is no nop", note.name, note.address);
        // As `-8@%rax`: a register.
        let arguments = note.arguments.split_whitespace().inspect(|argument| {
            let register = argument.strip_prefix("-8@").unwrap_or_else(|| panic!("{argument}"));
            assert!(
                register.starts_with(['%', 'x']),
                "{argument} of {} is to be computed",
                note.name
            );
        });
        seen.insert((note.name.clone(), arguments.count()));
    }
    let wanted = [
        ("awake", 0),
        ("enter", 1),
        ("host", 1),
        ("leave", 1),
        ("relieve", 2),
        ("sleep", 0),
        ("spawn", 1),
        ("steal", 2),
        ("switch", 2),
        ("tick", 1),
        ("unhost", 1),
        ("wake", 2),
    ];
    assert_eq!(seen, wanted.map(|(name, arguments)| (name.to_owned(), arguments)).into());
}
