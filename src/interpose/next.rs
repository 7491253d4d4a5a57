//! The C library's own functions, behind those that this crate defines.

use std::ffi::{CStr, c_void};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The next definition of a function in the order in which the dynamic linker looks.
///
/// Looked up when the program is loaded, since dlsym(3) may not be called in signal handlers, where some of these
/// functions may; or at the first call, which the initialisation of a library may make before.
pub(super) struct Next<F> {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
    function: PhantomData<F>,
}

impl<F: Copy> Next<F> {
    /// # Safety
    ///
    /// `F` is the type of a pointer to the C library's function of that name.
    pub(super) const unsafe fn new(name: &'static CStr) -> Next<F> {
        assert!(size_of::<F>() == size_of::<*mut c_void>());
        Next { name, address: AtomicPtr::new(std::ptr::null_mut()), function: PhantomData }
    }

    #[inline(always)]
    pub(super) fn get(&self) -> F {
        // Acquire is not needed: what the pointer leads to was there before the program began.
        let mut address = self.address.load(Ordering::Relaxed);
        if address.is_null() {
            address = self.look_up();
            if address.is_null() {
                // A program that calls what its C library does not have. Without a message: the caller is C.
                std::process::abort();
            }
        }
        // SAFETY: both are pointers to a function, of the type that the creator vouched for.
        unsafe { std::mem::transmute_copy(&address) }
    }

    /// Finds the function; null if the C library is too old to have it.
    #[cold]
    pub(super) fn look_up(&self) -> *mut c_void {
        // SAFETY: the name is a C string.
        let address = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.address.store(address, Ordering::Relaxed);
        address
    }
}
