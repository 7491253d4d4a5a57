# What Rust cannot say on x86-64: the thread pointer and the floating-point control words.
#
# All functions follow the System V ABI and touch no memory but what their prototypes name. They need no unwind information: none of them calls anything or can fault on good input.

# usize uthread_thread_pointer(void)
#   out      rax = FS base
#   needs    FSGSBASE (AT_HWCAP2 bit 1, Linux 5.9)
    .globl  uthread_thread_pointer
    .hidden uthread_thread_pointer
    .type   uthread_thread_pointer, @function
    .p2align 4
uthread_thread_pointer:
    rdfsbase rax
    ret
    .size   uthread_thread_pointer, . - uthread_thread_pointer

# void uthread_set_thread_pointer(usize value)
#   in       rdi = the new FS base
#   clobbers nothing
#   needs    FSGSBASE
    .globl  uthread_set_thread_pointer
    .hidden uthread_set_thread_pointer
    .type   uthread_set_thread_pointer, @function
    .p2align 4
uthread_set_thread_pointer:
    wrfsbase rdi
    ret
    .size   uthread_set_thread_pointer, . - uthread_set_thread_pointer

# void uthread_save_fp_control(FpControl *out)
#   in       rdi = { u32 mxcsr; u16 x87_control; }
#   clobbers nothing
    .globl  uthread_save_fp_control
    .hidden uthread_save_fp_control
    .type   uthread_save_fp_control, @function
    .p2align 4
uthread_save_fp_control:
    stmxcsr [rdi]
    fnstcw  [rdi + 4]
    ret
    .size   uthread_save_fp_control, . - uthread_save_fp_control

# void uthread_load_fp_control(const FpControl *in)
#   in       rdi = as above
#   clobbers nothing
    .globl  uthread_load_fp_control
    .hidden uthread_load_fp_control
    .type   uthread_load_fp_control, @function
    .p2align 4
uthread_load_fp_control:
    ldmxcsr [rdi]
    fldcw   [rdi + 4]
    ret
    .size   uthread_load_fp_control, . - uthread_load_fp_control
