//! Frames of threads, from copies of their stacks.
//!
//! **Problem.** The unwinder of the language walks its own stack. Those of other threads, parked or interrupted at
//! any instruction, change while one looks.
//!
//! **Alternatives.** To have each thread walk its own stack (Go's runtime does it with the world stopped, for it
//! knows its frames) would wake up thousands, and run the unwinder inside of whatever the thread was doing. Frame
//! pointers are left out by most compilers.
//!
//! **Choice.** A copy of the stack, the registers at which its thread left, and an unwinder that reads both and the
//! tables of the compiler: framehop, which is made for profilers. Nobody is stopped. Tables are copied, too, once for
//! each report: a library may be closed meanwhile.

use std::collections::HashMap;
use std::ffi::c_void;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use framehop::{
    CacheNative, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind, Module,
    Unwinder, UnwinderNative,
};

use crate::arch::Position;

/// The most frames of a thread.
const MOST: usize = 128;

/// A function in which a thread is, or waits for another to return.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// The address of the instruction to be executed next.
    pub address: usize,
    /// The function, if symbols tell. Of functions that were inlined there are several at one address, the innermost
    /// first.
    pub function: Option<String>,
    /// Where in the source, if debug information tells.
    pub file: Option<String>,
    /// The line in that file.
    pub line: Option<u32>,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(name) => f.write_str(name)?,
            None => write!(f, "{:#x}", self.address)?,
        }
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, " at {file}:{line}"),
            _ => Ok(()),
        }
    }
}

type Bytes = Arc<[u8]>;

/// Finds frames, with the tables of all modules that are loaded when it is made.
pub(super) struct Walker {
    unwinder: UnwinderNative<Bytes, MayAllocateDuringUnwind>,
    cache: CacheNative<MayAllocateDuringUnwind>,
    names: HashMap<usize, Vec<Frame>>,
}

impl Walker {
    pub(super) fn new() -> Walker {
        let mut unwinder = UnwinderNative::new();
        modules().into_iter().for_each(|module| unwinder.add_module(module));
        Walker { unwinder, cache: CacheNative::new(), names: HashMap::new() }
    }

    /// The frames of a thread that is at that place, whose stack from the stack pointer on is given, innermost first.
    pub(super) fn walk(&mut self, at: Position, stack: &[u8]) -> Vec<FrameAddress> {
        let mut read = |address: u64| {
            let offset = usize::try_from(address).ok().and_then(|a| a.checked_sub(at.sp));
            let word = offset.and_then(|offset| stack.get(offset..)?.first_chunk());
            word.map(|word| u64::from_ne_bytes(*word)).ok_or(())
        };
        let registers = registers(at);
        let mut frames =
            self.unwinder.iter_frames(at.pc as u64, registers, &mut self.cache, &mut read);
        let mut found = Vec::new();
        while found.len() < MOST
            && let Ok(Some(frame)) = frames.next()
        {
            found.push(frame);
        }
        found
    }

    /// What is known of an address.
    fn name(&mut self, frame: FrameAddress) -> &[Frame] {
        let address = frame.address() as usize;
        let look_up = frame.address_for_lookup() as usize;
        self.names.entry(look_up).or_insert_with(|| resolve(address, look_up))
    }

    /// What is known of these addresses.
    pub(super) fn names(&mut self, addresses: &[FrameAddress]) -> Arc<[Frame]> {
        addresses.iter().flat_map(|address| self.name(*address).to_vec()).collect()
    }
}

#[cfg(target_arch = "x86_64")]
fn registers(at: Position) -> framehop::UnwindRegsNative {
    framehop::UnwindRegsNative::new(at.pc as u64, at.sp as u64, at.bp as u64)
}

#[cfg(target_arch = "aarch64")]
fn registers(at: Position) -> framehop::UnwindRegsNative {
    framehop::UnwindRegsNative::new(at.pc as u64, at.sp as u64, at.bp as u64)
}

fn resolve(address: usize, look_up: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    backtrace::resolve(look_up as *mut c_void, |symbol| {
        frames.push(Frame {
            address,
            function: symbol.name().map(|name| format!("{name:#}")),
            file: symbol.filename().map(|file| file.display().to_string()),
            line: symbol.lineno(),
        });
    });
    if frames.is_empty() {
        frames.push(Frame { address, function: None, file: None, line: None });
    }
    frames
}

/// The modules that are loaded and have tables.
fn modules() -> Vec<Module<Bytes>> {
    unsafe extern "C" fn visit(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        found: *mut c_void,
    ) -> libc::c_int {
        // SAFETY: the loader passes on the pointer given below, and a description that is valid during the call.
        let (info, found) = unsafe { (&*info, &mut *found.cast::<Vec<Module<Bytes>>>()) };
        // SAFETY: the loader keeps the module and its headers while it describes them.
        found.extend(unsafe { describe(info) });
        0
    }
    let mut found: Vec<Module<Bytes>> = Vec::new();
    // SAFETY: the function takes what it is given here, and does not unwind: to allocate aborts if it fails, and sums of
    // addresses wrap.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut found).cast()) };
    found
}

/// # Safety
///
/// The module is loaded, and its program headers are what they are said to be.
unsafe fn describe(info: &libc::dl_phdr_info) -> Option<Module<Bytes>> {
    let base = info.dlpi_addr;
    let headers = if info.dlpi_phnum == 0 {
        &[]
    } else {
        // SAFETY: as the caller says.
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) }
    };
    let range = |h: &libc::Elf64_Phdr| h.p_vaddr..h.p_vaddr.wrapping_add(h.p_memsz);
    let loaded = || headers.iter().filter(|h| h.p_type == libc::PT_LOAD).map(range);
    let all = loaded().map(|r| r.start).min()?..loaded().map(|r| r.end).max()?;
    let index = range(headers.iter().find(|h| h.p_type == libc::PT_GNU_EH_FRAME)?);
    // SAFETY: the headers say that this is loaded.
    let index_data = unsafe { bytes(base, &index) };
    let start = table(&index_data, index.start)?;
    let segment = loaded().find(|r| r.contains(&start))?;
    let table = start..segment.end;
    // SAFETY: a part of a segment that is loaded.
    let table_data = unsafe { bytes(base, &table) };
    let info = ExplicitModuleSectionInfo {
        base_svma: 0,
        eh_frame_hdr_svma: Some(index),
        eh_frame_hdr: Some(index_data),
        eh_frame_svma: Some(table),
        eh_frame: Some(table_data),
        ..Default::default()
    };
    Some(Module::new(
        String::new(),
        base.wrapping_add(all.start)..base.wrapping_add(all.end),
        base,
        info,
    ))
}

/// A copy of what a module has there.
///
/// # Safety
///
/// It is loaded, and readable.
unsafe fn bytes(base: u64, range: &Range<u64>) -> Bytes {
    let length = range.end.saturating_sub(range.start) as usize;
    // SAFETY: as the caller says.
    unsafe { std::slice::from_raw_parts(base.wrapping_add(range.start) as *const u8, length) }
        .into()
}

/// Where the table is that an index, `.eh_frame_hdr`, belongs to ("Linux Standard Base", chapter 10.6): the first
/// pointer behind four bytes, the second of which says how it is written.
fn table(index: &[u8], at: u64) -> Option<u64> {
    const RELATIVE_4_BYTES: u8 = 0x1b;
    let (header, rest) = index.split_first_chunk::<4>()?;
    let distance = i32::from_ne_bytes(*rest.first_chunk()?);
    (header[1] == RELATIVE_4_BYTES)
        .then(|| at.wrapping_add(4).wrapping_add_signed(i64::from(distance)))
}
