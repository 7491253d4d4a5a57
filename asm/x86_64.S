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

# Where a new stack begins (see `arch::prepare`). Jumped to by the switch, never called.
#   in       rdi, rsi = as the switch passes them; on the stack: a function, and its third argument
#   calls    void function(usize, usize, void *), which does not return
#   The outermost frame of a green thread, as far as unwinders can tell: what lies beyond is the stack of whichever worker runs the thread at the moment, and that may change between two steps of an unwinder.
    .globl  uthread_begin
    .hidden uthread_begin
    .type   uthread_begin, @function
    .p2align 4
uthread_begin:
    .cfi_startproc
    .cfi_undefined rip                  # the end, for unwinders that follow tables
    pop     rax
    pop     rdx
    xor     ebp, ebp                    # and for those that follow frame pointers
    call    rax
    ud2
    .cfi_endproc
    .size   uthread_begin, . - uthread_begin

# Where an interrupted thread goes on (see `preempt`). Never called: the signal handler lets the thread return here instead of to the instruction that it was interrupted at, with all registers as they were but rsp and rip.
#
# On entry, and what is saved below it:
#
#       |  frames of the thread  |
#       +------------------------+  <- rsp when interrupted
#       | red zone, 128 bytes    |
#       +------------------------+
#       | rip when interrupted   |
#       | the argument           |  <- rsp on entry
#       +------------------------+
#       | flags, rax … r15       |  <- rbp from here on, 16 words below the entry
#       | x87 control word       |
#       +------------------------+
#       | XSAVE area, aligned    |  <- rsp during the call
#       +------------------------+
#
# calls  u32 *uthread_interrupted(usize argument, const usize *frame), whose frame is what rbp points to, and which may return on another OS thread; what it returns is set to 0
# The argument's bit 32 says that the state of the matrix tiles (AMX) is to be saved, too; else that, which is large and seldom used, is left out, since it is in its initial state. That of the protection keys (PKRU) never is: it stays the OS thread's.
# reads  uthread_xsave_size and uthread_xsave_masks (two u32 each: without the tiles, and with them; of the mask, the lower half), uthread_xsave_flags (u8: bit 0, there is XSAVEC; bit 1, there is AVX)
    .hidden uthread_xsave_size
    .hidden uthread_xsave_masks
    .hidden uthread_xsave_flags
    .hidden uthread_interrupted
    .globl  uthread_detour
    .hidden uthread_detour
    .type   uthread_detour, @function
    .p2align 4
uthread_detour:
    .cfi_startproc
    .cfi_signal_frame                   # rip is an instruction that was interrupted, not a return address
    .cfi_def_cfa rsp, 144
    .cfi_offset rip, -136
    pushfq
    .cfi_adjust_cfa_offset 8
    push    rax
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset rax, 0
    push    rcx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset rcx, 0
    push    rdx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset rdx, 0
    push    rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset rbx, 0
    push    rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset rbp, 0
    push    rsi
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset rsi, 0
    push    rdi
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset rdi, 0
    push    r8
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r8, 0
    push    r9
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r9, 0
    push    r10
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r10, 0
    push    r11
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r11, 0
    push    r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r12, 0
    push    r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r13, 0
    push    r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r14, 0
    push    r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r15, 0
    mov     rbp, rsp
    .cfi_def_cfa_register rbp
    cld                                 # the ABI's direction
    mov     rdi, [rbp + 16 * 8]         # the argument
    mov     rsi, rbp                    # the frame
    fnstcw  [rbp - 8]

    # The vector state; the lower half of its mask stays in ebx, and whether there are tiles in r12d. XRSTOR demands a header (64 bytes at offset 512) that is zero where XSAVE does not write it.
    mov     ebx, dword ptr [rip + uthread_xsave_masks]
    mov     eax, dword ptr [rip + uthread_xsave_size]
    xor     r12d, r12d
    btr     rdi, 32
    jnc     1f
    inc     r12d
    mov     ebx, dword ptr [rip + uthread_xsave_masks + 4]
    mov     eax, dword ptr [rip + uthread_xsave_size + 4]
1:  lea     rsp, [rbp - 16]
    sub     rsp, rax
    and     rsp, -64
    xor     eax, eax
    mov     [rsp + 512], rax
    mov     [rsp + 520], rax
    mov     [rsp + 528], rax
    mov     [rsp + 536], rax
    mov     [rsp + 544], rax
    mov     [rsp + 552], rax
    mov     [rsp + 560], rax
    mov     [rsp + 568], rax
    mov     eax, ebx
    mov     edx, -1
    test    byte ptr [rip + uthread_xsave_flags], 1
    jz      2f
    xsavec  [rsp]
    jmp     3f
2:  xsave   [rsp]

    # The state that the ABI has at a call: no x87 register in use, upper halves of vectors clean, no tiles.
3:  test    r12d, r12d
    jz      5f
    tilerelease
5:  fninit
    fldcw   [rbp - 8]
    test    byte ptr [rip + uthread_xsave_flags], 2
    jz      4f
    vzeroupper
4:  call    uthread_interrupted
    mov     dword ptr [rax], 0          # no longer pinned; from here on the handler knows by rip

    mov     eax, ebx
    mov     edx, -1
    xrstor  [rsp]
    mov     rsp, rbp
    .cfi_def_cfa_register rsp
    pop     r15
    .cfi_adjust_cfa_offset -8
    .cfi_same_value r15
    pop     r14
    .cfi_adjust_cfa_offset -8
    .cfi_same_value r14
    pop     r13
    .cfi_adjust_cfa_offset -8
    .cfi_same_value r13
    pop     r12
    .cfi_adjust_cfa_offset -8
    .cfi_same_value r12
    pop     r11
    .cfi_adjust_cfa_offset -8
    .cfi_same_value r11
    pop     r10
    .cfi_adjust_cfa_offset -8
    .cfi_same_value r10
    pop     r9
    .cfi_adjust_cfa_offset -8
    .cfi_same_value r9
    pop     r8
    .cfi_adjust_cfa_offset -8
    .cfi_same_value r8
    pop     rdi
    .cfi_adjust_cfa_offset -8
    .cfi_same_value rdi
    pop     rsi
    .cfi_adjust_cfa_offset -8
    .cfi_same_value rsi
    pop     rbp
    .cfi_adjust_cfa_offset -8
    .cfi_same_value rbp
    pop     rbx
    .cfi_adjust_cfa_offset -8
    .cfi_same_value rbx
    pop     rdx
    .cfi_adjust_cfa_offset -8
    .cfi_same_value rdx
    pop     rcx
    .cfi_adjust_cfa_offset -8
    .cfi_same_value rcx
    pop     rax
    .cfi_adjust_cfa_offset -8
    .cfi_same_value rax
    popfq
    .cfi_adjust_cfa_offset -8
    lea     rsp, [rsp + 8]              # the argument, without touching the flags
    .cfi_adjust_cfa_offset -8
    ret     128                         # and over the red zone
    .cfi_endproc
    .globl  uthread_detour_end
    .hidden uthread_detour_end
uthread_detour_end:
    .size   uthread_detour, . - uthread_detour
