//! What glibc exports for its debugger library: functions of the loader, and descriptors of private
//! structures.
//!
//! libthread_db lets a debugger inspect any version of glibc. For that the library carries constants
//! named `_thread_db_*` (glibc's `nptl_db/structs.def`): for a structure its size, for a field three
//! words: its size in bits, its number of elements, its offset in bytes.

use std::ffi::{CStr, c_int, c_void};
use std::ptr::NonNull;

/// Where a field of a private structure lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    bytes: usize,
    offset: usize,
}

impl Field {
    /// The address of the field in the structure at `base`.
    ///
    /// # Safety
    ///
    /// `base` points to a structure of the kind the field was described for.
    pub(super) unsafe fn of<T>(self, base: NonNull<u8>) -> NonNull<T> {
        debug_assert!(size_of::<T>() <= self.bytes);
        // SAFETY: the offset is within the structure.
        unsafe { base.add(self.offset).cast() }
    }

    /// The address of element `index` where the field is an array.
    ///
    /// # Safety
    ///
    /// As for [`Field::of`]; `index` is within the array.
    pub(super) unsafe fn element<T>(self, base: NonNull<u8>, index: usize) -> NonNull<T> {
        // SAFETY: the caller says that the array reaches that far.
        unsafe { base.add(self.offset + index * self.bytes).cast() }
    }
}

/// The loader's and libc's functions and layouts, all present.
pub(super) struct Glibc {
    allocate_tls: unsafe extern "C" fn(*mut c_void) -> *mut c_void,
    deallocate_tls: unsafe extern "C" fn(*mut c_void, bool),
    call_tls_dtors: extern "C" fn(),
    /// `__libc_early_init`'s sibling: points the calling thread's ctype tables at its locale.
    ctype_init: extern "C" fn(),
    /// Bytes of `struct pthread`.
    pub(super) sizeof_pthread: usize,
    pub(super) tid: Field,
    pub(super) list: Field,
    list_next: Field,
    list_prev: Field,
    cancelhandling: Field,
    dtvp: Field,
    dtv_slot: Field,
    dtv_counter: Field,
    dtv_pointer: Field,
    /// Offset of the kernel's rseq area from the thread pointer (glibc 2.35), if there is one.
    pub(super) rseq_offset: Option<isize>,
    pub(super) keys: Keys,
}

/// The layout of `pthread_key_create`'s tables, for `keys`.
pub(super) struct Keys {
    /// `__pthread_keys`: the process's keys.
    pub(super) table: NonNull<u8>,
    pub(super) table_length: usize,
    pub(super) sizeof_key: usize,
    pub(super) key_seq: Field,
    pub(super) key_destructor: Field,
    /// `struct pthread`'s array of pointers to second-level blocks.
    pub(super) specific: Field,
    pub(super) specific_length: usize,
    pub(super) second_level: Field,
    pub(super) second_level_length: usize,
    pub(super) data_seq: Field,
    pub(super) data_value: Field,
}

// SAFETY: the pointers are to libc's code and tables, which are the same for all threads.
unsafe impl Send for Glibc {}
// SAFETY: as above; tables that libc changes are read atomically.
unsafe impl Sync for Glibc {}

fn symbol(name: &CStr) -> Result<NonNull<u8>, String> {
    // SAFETY: the name is a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    NonNull::new(found.cast())
        .ok_or_else(|| format!("libc exports no {}: not a dynamic glibc?", name.to_string_lossy()))
}

fn size(name: &CStr) -> Result<usize, String> {
    // SAFETY: `_thread_db_sizeof_*` symbols are 32-bit constants.
    Ok(unsafe { symbol(name)?.cast::<u32>().read() } as usize)
}

fn array(name: &CStr) -> Result<(Field, usize), String> {
    // SAFETY: `_thread_db_*` symbols of fields are three 32-bit constants.
    let [bits, length, offset] = unsafe { symbol(name)?.cast::<[u32; 3]>().read() };
    Ok((Field { bytes: bits as usize / 8, offset: offset as usize }, length as usize))
}

fn field(name: &CStr) -> Result<Field, String> {
    Ok(array(name)?.0)
}

impl Glibc {
    /// Looks everything up; the error names what is missing.
    pub(super) fn find() -> Result<Glibc, String> {
        // Described as one field that holds all the pointers.
        let specific = field(c"_thread_db_pthread_specific")?;
        let specific_length = specific.bytes / size_of::<usize>();
        let specific = Field { bytes: size_of::<usize>(), ..specific };
        let (second_level, second_level_length) =
            array(c"_thread_db_pthread_key_data_level2_data")?;
        let keys = Keys {
            table: symbol(c"__pthread_keys")?,
            table_length: array(c"_thread_db___pthread_keys")?.1,
            sizeof_key: size(c"_thread_db_sizeof_pthread_key_struct")?,
            key_seq: field(c"_thread_db_pthread_key_struct_seq")?,
            key_destructor: field(c"_thread_db_pthread_key_struct_destr")?,
            specific,
            specific_length,
            second_level,
            second_level_length,
            data_seq: field(c"_thread_db_pthread_key_data_seq")?,
            data_value: field(c"_thread_db_pthread_key_data_data")?,
        };
        let rseq_offset = symbol(c"__rseq_offset").ok();
        // SAFETY: the symbols have these types in every glibc that exports them under these names
        // (elf/dl-tls.c, stdlib/cxa_thread_atexit_impl.c, ctype/ctype-info.c, rseq's documented
        // `const ptrdiff_t __rseq_offset`).
        unsafe {
            Ok(Glibc {
                allocate_tls: std::mem::transmute::<
                    *mut u8,
                    unsafe extern "C" fn(*mut c_void) -> *mut c_void,
                >(symbol(c"_dl_allocate_tls")?.as_ptr()),
                deallocate_tls: std::mem::transmute::<
                    *mut u8,
                    unsafe extern "C" fn(*mut c_void, bool),
                >(symbol(c"_dl_deallocate_tls")?.as_ptr()),
                call_tls_dtors: std::mem::transmute::<*mut u8, extern "C" fn()>(
                    symbol(c"__call_tls_dtors")?.as_ptr(),
                ),
                ctype_init: std::mem::transmute::<*mut u8, extern "C" fn()>(
                    symbol(c"__ctype_init")?.as_ptr(),
                ),
                sizeof_pthread: size(c"_thread_db_sizeof_pthread")?,
                tid: field(c"_thread_db_pthread_tid")?,
                list: field(c"_thread_db_pthread_list")?,
                list_next: field(c"_thread_db_list_t_next")?,
                list_prev: field(c"_thread_db_list_t_prev")?,
                cancelhandling: field(c"_thread_db_pthread_cancelhandling")?,
                dtvp: field(c"_thread_db_pthread_dtvp")?,
                dtv_slot: field(c"_thread_db_dtv_dtv")?,
                dtv_counter: field(c"_thread_db_dtv_t_counter")?,
                dtv_pointer: field(c"_thread_db_dtv_t_pointer_val")?,
                rseq_offset: rseq_offset.map(|p| p.cast::<isize>().read()),
                keys,
            })
        }
    }

    /// An address in libc and one in the loader, by which their modules are recognised.
    pub(super) fn addresses(&self) -> [usize; 2] {
        [self.ctype_init as usize, self.allocate_tls as usize]
    }

    /// The address of `struct pthread` for a thread pointer.
    pub(super) fn pthread_of(&self, thread_pointer: NonNull<u8>) -> NonNull<u8> {
        if crate::arch::TLS_BELOW_THREAD_POINTER {
            thread_pointer
        } else {
            // SAFETY: variant I places the structure directly below the thread pointer.
            unsafe { thread_pointer.sub(self.sizeof_pthread) }
        }
    }

    /// Adds the DTV to a block and copies the TLS images of all modules into it; null if there is no
    /// memory.
    ///
    /// # Safety
    ///
    /// The block is as large as the static TLS of all modules, and unused.
    pub(super) unsafe fn allocate_tls(&self, thread_pointer: NonNull<u8>) -> *mut c_void {
        // SAFETY: as promised to this function.
        unsafe { (self.allocate_tls)(thread_pointer.as_ptr().cast()) }
    }

    /// Frees the DTV of a block and the dynamic TLS behind it; the block itself is not freed.
    ///
    /// # Safety
    ///
    /// The block went through [`Glibc::allocate_tls`], and nobody uses it.
    pub(super) unsafe fn deallocate_tls(&self, thread_pointer: NonNull<u8>) {
        // SAFETY: as promised to this function.
        unsafe { (self.deallocate_tls)(thread_pointer.as_ptr().cast(), false) }
    }

    /// Runs the destructors registered by `__cxa_thread_atexit_impl` on the calling thread.
    pub(super) fn call_tls_dtors(&self) {
        (self.call_tls_dtors)();
    }

    /// Gives the calling thread the process's locale, which is what a new thread has.
    pub(super) fn reset_locale(&self) {
        // SAFETY: LC_GLOBAL_LOCALE (−1; the libc crate lacks it) is always a valid locale.
        unsafe { libc::uselocale(usize::MAX as libc::locale_t) };
        (self.ctype_init)();
    }

    /// Gives the calling thread an `errno` of 0, as a new one has.
    pub(super) fn reset_errno(&self) {
        nix::errno::Errno::clear();
    }

    /// Gives the calling thread the cancellation state of a new one.
    pub(super) fn reset_cancellation(&self) {
        unsafe extern "C" {
            fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
            fn pthread_setcanceltype(kind: c_int, old: *mut c_int) -> c_int;
        }
        const PTHREAD_CANCEL_ENABLE: c_int = 0;
        const PTHREAD_CANCEL_DEFERRED: c_int = 0;
        // SAFETY: both accept these values and a null pointer (pthread_setcancelstate(3)).
        unsafe {
            pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, std::ptr::null_mut());
            pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, std::ptr::null_mut());
        }
    }

    /// Completes a copied `struct pthread`: its tid, a list of threads of which it is the only
    /// member (`fork`'s child unlinks itself from it), and no rseq area, which the kernel keeps in the
    /// OS thread's own block; libc then falls back to system calls.
    ///
    /// # Safety
    ///
    /// The block is writable and nobody uses it.
    pub(super) unsafe fn personalise(&self, thread_pointer: NonNull<u8>, tid: u32) {
        const RSEQ_CPU_ID_OFFSET: usize = 4;
        const RSEQ_CPU_ID_REGISTRATION_FAILED: i32 = -2;
        let pthread = self.pthread_of(thread_pointer);
        // SAFETY: all are fields of the block's own structures.
        unsafe {
            self.tid.of::<u32>(pthread).write(tid);
            let node = self.list.of::<u8>(pthread);
            self.list_next.of::<NonNull<u8>>(node).write(node);
            self.list_prev.of::<NonNull<u8>>(node).write(node);
            self.cancelhandling.of::<u32>(pthread).write(0);
            if let Some(offset) = self.rseq_offset {
                let area = thread_pointer.offset(offset);
                area.add(RSEQ_CPU_ID_OFFSET).cast::<i32>().write(RSEQ_CPU_ID_REGISTRATION_FAILED);
            }
        }
    }

    /// The pointer to the block's DTV, the loader's table from module to TLS.
    ///
    /// # Safety
    ///
    /// `thread_pointer` is that of a block or of an OS thread.
    pub(super) unsafe fn dtv(&self, thread_pointer: NonNull<u8>) -> NonNull<NonNull<u8>> {
        if crate::arch::TLS_BELOW_THREAD_POINTER {
            // SAFETY: variant II keeps the pointer in the header of `struct pthread`.
            unsafe { self.dtvp.of(self.pthread_of(thread_pointer)) }
        } else {
            // Variant I keeps it in the first word at the thread pointer.
            thread_pointer.cast()
        }
    }

    /// Whether the block has TLS of one of the modules asked for: in a new block that of any module
    /// with static TLS, in a used one also memory that the loader allocated when the occupant first
    /// used a library loaded at run time.
    ///
    /// # Safety
    ///
    /// The block is complete, and nobody uses it.
    pub(super) unsafe fn has_tls_of(
        &self,
        thread_pointer: NonNull<u8>,
        is_asked_for: impl Fn(usize) -> bool,
    ) -> bool {
        const TLS_DTV_UNALLOCATED: usize = usize::MAX;
        // SAFETY: the slot before the first holds the number of slots, and slots 1 to that number
        // belong to modules (elf/dl-tls.c).
        unsafe {
            let dtv = self.dtv(thread_pointer).read();
            let length: usize = self.dtv_counter.of::<usize>(dtv.sub(self.dtv_slot.bytes)).read();
            (1..=length).filter(|m| is_asked_for(*m)).any(|module| {
                let slot = dtv.add(module * self.dtv_slot.bytes);
                let address = self.dtv_pointer.of::<usize>(slot).read();
                address != 0 && address != TLS_DTV_UNALLOCATED
            })
        }
    }
}
