//! What a thread block looks like at a thread's birth, copied from a donor.
//!
//! The donor is an OS thread, created by libc on a stack of ours, that copies its own thread block
//! before it has used any of it, and ends. Words in the copy that point into the donor's block (list
//! heads, self pointers, the resolver's state) are moved to the new block when the copy is written
//! out.

use std::ffi::{c_int, c_void};
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Remains;
use super::glibc::Glibc;
use crate::arch;
use crate::context::stack::page_size;

/// Pages of the donor's stack, at the top of which libc puts its thread block.
const DONOR_STACK_PAGES: usize = 64;

/// The static TLS of one loaded module.
#[derive(Clone, Copy, Debug)]
struct Module {
    id: usize,
    /// From the thread pointer to the first byte.
    offset: isize,
    image: *const u8,
    image_length: usize,
    length: usize,
    alignment: usize,
    /// Libc or the loader: its values pass to a block's next occupant.
    inherited: bool,
}

impl Module {
    fn end(&self) -> isize {
        self.offset + self.length as isize
    }
}

/// See the module's documentation.
pub(super) struct Template {
    /// Bytes of a block below its thread pointer.
    pub(super) below: usize,
    /// Bytes of a block at and above its thread pointer.
    pub(super) above: usize,
    /// The donor's block, `below + above` bytes from address `origin`.
    copy: Vec<u8>,
    origin: usize,
    modules: Vec<Module>,
    /// The modules with an id below 128, as a set of bits.
    first_modules: u128,
    /// Number of module loads (`dlpi_adds`) that were checked for static TLS.
    checked_loads: AtomicU64,
    pthread_length: usize,
}

// SAFETY: the images point into loaded modules' constant data. A static module is never unloaded.
unsafe impl Send for Template {}
// SAFETY: as above; nothing is changed but an atomic.
unsafe impl Sync for Template {}

/// What the donor fills in. All memory is allocated beforehand: the donor must not touch malloc.
struct Photo<'a> {
    glibc: &'a Glibc,
    thread_pointer: usize,
    modules: Vec<Module>,
    loads: u64,
    low: usize,
    copy: Vec<u8>,
    room: bool,
}

impl Template {
    /// Creates a donor and copies it.
    pub(super) fn take(glibc: &Glibc) -> io::Result<Template> {
        let stack = memmap2::MmapOptions::new().len(DONOR_STACK_PAGES * page_size()).map_anon()?;
        let mut photo = Photo {
            glibc,
            thread_pointer: 0,
            modules: Vec::with_capacity(count_modules() + 16),
            loads: 0,
            low: 0,
            copy: Vec::with_capacity(stack.len()),
            room: true,
        };
        run_donor(&stack, &mut photo)?;
        if !photo.room {
            return Err(io::Error::other(
                "thread-local storage of the program is too large for a thread block",
            ));
        }
        let top = photo.low + photo.copy.len();
        Ok(Template {
            below: photo.thread_pointer - photo.low,
            above: top - photo.thread_pointer,
            copy: photo.copy,
            origin: photo.low,
            first_modules: photo
                .modules
                .iter()
                .filter_map(|m| 1_u128.checked_shl(m.id as u32))
                .sum(),
            modules: photo.modules,
            checked_loads: AtomicU64::new(photo.loads),
            pthread_length: glibc.sizeof_pthread,
        })
    }

    /// Fails if a library loaded meanwhile has static TLS, for which blocks have no room.
    ///
    /// Only the loader knows which modules have: it writes their addresses into a new DTV. So a block
    /// is built for the purpose, with as much room around it as the loader could ever use.
    pub(super) fn check_modules(&self, glibc: &Glibc) -> io::Result<()> {
        const ROOM: usize = 1 << 20;
        let mut loads = 0;
        for_each_module(|info| {
            loads = info.dlpi_adds;
            false
        });
        if loads == self.checked_loads.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut memory = memmap2::MmapOptions::new().len(2 * ROOM).map_anon()?;
        // SAFETY: the middle of the mapping; blocks are smaller than half of it.
        let middle = unsafe { NonNull::from(&mut memory[..]).cast::<u8>().add(ROOM) };
        // SAFETY: the memory is ours, and larger than the static TLS of all modules with its reserve.
        let intruder = unsafe {
            if glibc.allocate_tls(middle).is_null() {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            let intruder = glibc.has_tls_of(middle, |m| !self.is_static(m));
            glibc.deallocate_tls(middle);
            intruder
        };
        if intruder {
            return Err(io::Error::other(
                "a library loaded at run time demands static thread-local storage, which green threads do not \
                 have; load it before the first green thread is spawned, or link the program to it",
            ));
        }
        self.checked_loads.store(loads, Ordering::Relaxed);
        Ok(())
    }

    /// Whether that module has its place in every block.
    pub(super) fn is_static(&self, module: usize) -> bool {
        // Asked for some twenty modules at every spawn.
        match 1_u128.checked_shl(module as u32) {
            Some(bit) => self.first_modules & bit != 0,
            None => self.modules.iter().any(|m| m.id == module),
        }
    }

    /// Completes a block to which the loader has added its part.
    ///
    /// # Safety
    ///
    /// The block is writable and unused, and `allocate_tls` succeeded on it.
    pub(super) unsafe fn write(
        &self,
        glibc: &Glibc,
        thread_pointer: NonNull<u8>,
        remains: Remains,
    ) {
        // SAFETY: everything written lies within the block.
        unsafe {
            let low = thread_pointer.sub(self.below);
            let dtv = glibc.dtv(thread_pointer).read();
            let pthread =
                glibc.pthread_of(thread_pointer).as_ptr() as usize - low.as_ptr() as usize;
            let pthread = pthread..pthread + self.pthread_length;
            self.write_at(low, pthread.start, &self.copy[pthread]);
            glibc.dtv(thread_pointer).write(dtv);
            let mut kept = remains.libc.as_deref();
            for module in self.inherited() {
                let range = self.range(module);
                let image = match &mut kept {
                    Some(kept) => {
                        kept.split_off(..range.len()).expect("as long as when it was saved")
                    }
                    None => &self.copy[range.clone()],
                };
                self.write_at(low, range.start, image);
            }
            glibc.personalise(thread_pointer, remains.tid);
        }
    }

    /// Writes donor-based bytes at an offset of the block at `low`, moving pointers into it.
    ///
    /// # Safety
    ///
    /// The block is writable and unused.
    unsafe fn write_at(&self, low: NonNull<u8>, offset: usize, image: &[u8]) {
        // SAFETY: callers pass parts of a block's extent.
        unsafe {
            low.add(offset).copy_from_nonoverlapping(NonNull::from(image).cast(), image.len());
            let aligned = offset.next_multiple_of(8) - offset;
            for (at, value) in words(image, aligned..image.len()) {
                if let Some(inner) = value.checked_sub(self.origin).filter(|o| *o < self.copy.len())
                {
                    low.add(offset + at).cast::<usize>().write(low.as_ptr() as usize + inner);
                }
            }
        }
    }

    /// Bytes of the block that hold the module's variables.
    fn range(&self, module: &Module) -> Range<usize> {
        let start = self.below.strict_add_signed(module.offset);
        start..start + module.length
    }

    /// Restores the initial values of all modules but libc and the loader.
    ///
    /// # Safety
    ///
    /// The block is complete, and nobody uses it.
    pub(super) unsafe fn renew(&self, thread_pointer: NonNull<u8>) {
        for module in self.modules.iter().filter(|m| !m.inherited) {
            // SAFETY: the module's area lies within the block, its image within the loaded module.
            unsafe {
                let area = thread_pointer.offset(module.offset);
                std::ptr::copy_nonoverlapping(module.image, area.as_ptr(), module.image_length);
                area.add(module.image_length).write_bytes(0, module.length - module.image_length);
            }
        }
    }

    /// Gives the block a new DTV and frees the old one with the dynamic TLS behind it.
    ///
    /// # Safety
    ///
    /// The block is complete, and nobody uses it.
    pub(super) unsafe fn rebuild_dynamic(
        &self,
        glibc: &Glibc,
        thread_pointer: NonNull<u8>,
    ) -> io::Result<()> {
        // SAFETY: the loader allocates first and then writes to the block; it knows only the DTV
        // pointer and the modules' areas, so that these are what must be put back.
        unsafe {
            let low = thread_pointer.sub(self.below);
            let block = std::slice::from_raw_parts(low.as_ptr(), self.copy.len()).to_vec();
            let slot = glibc.dtv(thread_pointer);
            let old = slot.read();
            if glibc.allocate_tls(thread_pointer).is_null() {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            let new = slot.replace(old);
            glibc.deallocate_tls(thread_pointer);
            slot.write(new);
            for module in self.inherited() {
                let range = self.range(module);
                low.add(range.start).copy_from_nonoverlapping(
                    NonNull::from(&block[range.clone()]).cast(),
                    range.len(),
                );
            }
        }
        Ok(())
    }

    /// What is to be kept of a block that ends: the inherited modules' bytes, if they changed at all.
    ///
    /// # Safety
    ///
    /// The block is complete, and nobody uses it.
    pub(super) unsafe fn remains(&self, glibc: &Glibc, thread_pointer: NonNull<u8>) -> Remains {
        // SAFETY: the block is readable; the field is libc's tid.
        let (low, block, tid) = unsafe {
            let low = thread_pointer.sub(self.below);
            let block = std::slice::from_raw_parts(low.as_ptr(), self.copy.len());
            (
                low.as_ptr() as usize,
                block,
                glibc.tid.of::<u32>(glibc.pthread_of(thread_pointer)).read(),
            )
        };
        let mut kept = Vec::new();
        let mut changed = false;
        for module in self.inherited() {
            let range = self.range(module);
            let start = kept.len();
            kept.extend_from_slice(&block[range.clone()]);
            // Back to the donor's addresses, from which `write` moves them on.
            for (at, value) in words(block, range.clone()) {
                if let Some(inner) = value.checked_sub(low).filter(|o| *o < block.len()) {
                    let at = start + at - range.start;
                    kept[at..at + 8].copy_from_slice(&(self.origin + inner).to_ne_bytes());
                }
            }
            changed |= kept[start..] != self.copy[range];
        }
        Remains { tid, libc: changed.then(|| kept.into_boxed_slice()) }
    }

    fn inherited(&self) -> impl Iterator<Item = &Module> {
        self.modules.iter().filter(|m| m.inherited)
    }
}

/// The words of `image` in `range`, each with its offset; the range begins at an aligned one.
fn words(image: &[u8], range: Range<usize>) -> impl Iterator<Item = (usize, usize)> + '_ {
    range.clone().step_by(8).take_while(move |at| at + 8 <= range.end).map(|at| {
        let bytes: [u8; 8] = image[at..at + 8].try_into().expect("eight bytes were asked for");
        (at, usize::from_ne_bytes(bytes))
    })
}

/// Runs `photo` on a thread of libc's making that has the given stack.
fn run_donor(stack: &memmap2::MmapMut, photo: &mut Photo<'_>) -> io::Result<()> {
    let check =
        |code: c_int| if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) };
    // SAFETY: the calls follow pthread_attr_init(3), pthread_attr_setstack(3) and pthread_create(3);
    // stack and photo outlive the thread, which is joined here.
    unsafe {
        let mut attributes = std::mem::zeroed::<libc::pthread_attr_t>();
        check(libc::pthread_attr_init(&mut attributes))?;
        let mut thread = std::mem::zeroed::<libc::pthread_t>();
        let created = check(libc::pthread_attr_setstack(
            &mut attributes,
            stack.as_ptr() as *mut c_void,
            stack.len(),
        ))
        .and_then(|()| {
            check(libc::pthread_create(&mut thread, &attributes, pose, (&raw mut *photo).cast()))
        });
        libc::pthread_attr_destroy(&mut attributes);
        created?;
        check(libc::pthread_join(thread, std::ptr::null_mut()))
    }
}

/// The donor's life.
extern "C" fn pose(photo: *mut c_void) -> *mut c_void {
    // SAFETY: `run_donor` passes its exclusive reference and waits.
    let photo = unsafe { &mut *photo.cast::<Photo<'_>>() };
    let own = arch::thread_pointer();
    photo.thread_pointer = own;
    for_each_module(|info| {
        photo.loads = info.dlpi_adds;
        if let Some(module) = static_module(photo.glibc, info, own) {
            photo.room &= photo.modules.len() < photo.modules.capacity();
            if photo.room {
                photo.modules.push(module);
            }
        }
        true
    });
    let thread_pointer = NonNull::new(own as *mut u8).expect("a thread has a thread pointer");
    let pthread = photo.glibc.pthread_of(thread_pointer).as_ptr() as usize;
    const HEADER: usize = 16; // the words at a variant I thread pointer
    let mut low = pthread;
    let mut high = (pthread + photo.glibc.sizeof_pthread).max(own + HEADER);
    for module in &photo.modules {
        low = low.min(own.strict_add_signed(module.offset));
        high = high.max(own.strict_add_signed(module.end()));
    }
    if let Some(offset) = photo.glibc.rseq_offset {
        low = low.min(own.strict_add_signed(offset));
        high = high.max(own.strict_add_signed(offset) + 32);
    }
    // The strictest alignment that a thread pointer has (64 for `struct pthread`) carries over to
    // blocks whose top is aligned to a page if the distance to the top is a multiple of it.
    let strictest = photo.modules.iter().map(|m| m.alignment).fold(64, usize::max);
    photo.room &= strictest <= page_size();
    let alignment = strictest.min(page_size());
    low -= low % alignment;
    high = high.next_multiple_of(alignment);
    photo.low = low;
    photo.room &= high - low <= photo.copy.capacity();
    if photo.room {
        // SAFETY: libc's thread block spans this range and no other thread writes to it; bytes
        // beyond its end, which rounding up may include, lie on the stack that was given.
        photo
            .copy
            .extend_from_slice(unsafe { std::slice::from_raw_parts(low as *const u8, high - low) });
    }
    std::ptr::null_mut()
}

/// The static TLS of a module, if it has any. For a thread that has not used dynamic TLS.
fn static_module(
    glibc: &Glibc,
    info: &libc::dl_phdr_info,
    thread_pointer: usize,
) -> Option<Module> {
    if info.dlpi_tls_data.is_null() {
        return None;
    }
    // SAFETY: the loader describes the module's program headers.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let tls = headers.iter().find(|h| h.p_type == libc::PT_TLS)?;
    let contains = |address: usize| {
        headers.iter().filter(|h| h.p_type == libc::PT_LOAD).any(|h| {
            let start = (info.dlpi_addr + h.p_vaddr) as usize;
            (start..start + h.p_memsz as usize).contains(&address)
        })
    };
    Some(Module {
        id: info.dlpi_tls_modid,
        offset: (info.dlpi_tls_data as isize).wrapping_sub(thread_pointer as isize),
        image: (info.dlpi_addr + tls.p_vaddr) as *const u8,
        image_length: tls.p_filesz as usize,
        length: tls.p_memsz as usize,
        alignment: tls.p_align as usize,
        inherited: glibc.addresses().into_iter().any(contains),
    })
}

fn count_modules() -> usize {
    let mut count = 0;
    for_each_module(|_| {
        count += 1;
        true
    });
    count
}

/// Calls `visit` for each loaded module until it returns false. The loader's lock is held meanwhile.
fn for_each_module(mut visit: impl FnMut(&libc::dl_phdr_info) -> bool) {
    unsafe extern "C" fn each<F: FnMut(&libc::dl_phdr_info) -> bool>(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        visit: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader passes valid information, and our own pointer through.
        let (info, visit) = unsafe { (&*info, &mut *visit.cast::<F>()) };
        c_int::from(!visit(info))
    }
    fn call<F: FnMut(&libc::dl_phdr_info) -> bool>(visit: &mut F) {
        // SAFETY: `each` gets back the pointer it expects.
        unsafe { libc::dl_iterate_phdr(Some(each::<F>), (&raw mut *visit).cast()) };
    }
    call(&mut visit);
}
