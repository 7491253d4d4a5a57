// What Rust cannot say on AArch64: the thread pointer and the floating-point control register.
// The same names and prototypes as in x86_64.S. UNTESTED: it assembles; no machine has run it yet.

// usize uthread_thread_pointer(void)
//   out      x0 = TPIDR_EL0
    .globl  uthread_thread_pointer
    .hidden uthread_thread_pointer
    .type   uthread_thread_pointer, %function
    .p2align 4
uthread_thread_pointer:
    mrs     x0, tpidr_el0
    ret
    .size   uthread_thread_pointer, . - uthread_thread_pointer

// void uthread_set_thread_pointer(usize value)
//   in       x0 = the new TPIDR_EL0
    .globl  uthread_set_thread_pointer
    .hidden uthread_set_thread_pointer
    .type   uthread_set_thread_pointer, %function
    .p2align 4
uthread_set_thread_pointer:
    msr     tpidr_el0, x0
    ret
    .size   uthread_set_thread_pointer, . - uthread_set_thread_pointer

// void uthread_save_fp_control(FpControl *out)
//   in       x0 = { u64 fpcr; }
//   clobbers x1
    .globl  uthread_save_fp_control
    .hidden uthread_save_fp_control
    .type   uthread_save_fp_control, %function
    .p2align 4
uthread_save_fp_control:
    mrs     x1, fpcr
    str     x1, [x0]
    ret
    .size   uthread_save_fp_control, . - uthread_save_fp_control

// void uthread_load_fp_control(const FpControl *in)
//   in       x0 = as above
//   clobbers x1
    .globl  uthread_load_fp_control
    .hidden uthread_load_fp_control
    .type   uthread_load_fp_control, %function
    .p2align 4
uthread_load_fp_control:
    ldr     x1, [x0]
    msr     fpcr, x1
    ret
    .size   uthread_load_fp_control, . - uthread_load_fp_control

// Where a new stack begins (see `arch::prepare`). Jumped to by the switch, never called.
//   in       x0, x1 = as the switch passes them; on the stack: two words that are of no use, a function, and its third argument
//   calls    void function(usize, usize, void *), which does not return
//   The outermost frame of a green thread, as far as unwinders can tell.
    .globl  uthread_begin
    .hidden uthread_begin
    .type   uthread_begin, %function
    .p2align 4
uthread_begin:
    .cfi_startproc
    .cfi_undefined x30                  // the end, for unwinders that follow tables
    ldp     x3, x2, [sp, 16]
    add     sp, sp, 32
    mov     x29, xzr                    // and for those that follow frame pointers
    mov     x30, xzr
    blr     x3
    brk     1
    .cfi_endproc
    .size   uthread_begin, . - uthread_begin
