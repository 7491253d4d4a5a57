# What Rust cannot say on x86-64: the thread pointer and the floating-point control words.
#
# All functions follow the System V ABI and touch no memory but what their prototypes name and the
# red zone. They need no unwind information: none of them calls anything or can fault on good input.

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
#   clobbers eax, ecx, flags
# Both loads are dear next to the stores that tell whether they are needed, and threads that change
# these words are rare, so compare first. The six lowest bits of MXCSR are sticky exception flags,
# which the ABI does not preserve across calls: they neither force a load nor are they restored.
    .globl  uthread_load_fp_control
    .hidden uthread_load_fp_control
    .type   uthread_load_fp_control, @function
    .p2align 4
uthread_load_fp_control:
    stmxcsr [rsp - 8]
    mov     eax, [rsp - 8]
    xor     eax, [rdi]
    test    eax, 0xffffffc0
    jne     2f
1:  fnstcw  [rsp - 8]
    mov     ax, [rsp - 8]
    cmp     ax, [rdi + 4]
    jne     3f
    ret
2:  ldmxcsr [rdi]
    jmp     1b
3:  fldcw   [rdi + 4]
    ret
    .size   uthread_load_fp_control, . - uthread_load_fp_control
