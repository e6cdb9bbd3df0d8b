/* A boot sector: 64-bit mode with the first GB of memory mapped as it is and the state of AVX-512 enabled, then
 * `program`. */
    .section .boot, "ax"
    .code16
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $0x7c00, %sp
    /* Page tables from 0x10000 on: two of one entry, then 512 pages of 2 MB. */
    mov $0x1000, %ax
    mov %ax, %es
    xor %di, %di
    xor %eax, %eax
    mov $0xc00, %cx
    cld
    rep stosl
    movl $0x11003, %es:0
    movl $0x12003, %es:0x1000
    mov $0x2000, %di
    mov $0x83, %eax
    mov $512, %cx
next_page:
    mov %eax, %es:(%di)
    add $0x200000, %eax
    add $8, %di
    loop next_page
    mov $0x10000, %eax
    mov %eax, %cr3
    mov $0x40620, %eax              /* CR4: OSXSAVE, OSXMMEXCPT, OSFXSR, PAE */
    mov %eax, %cr4
    mov $0xc0000080, %ecx           /* EFER */
    rdmsr
    or $0x100, %eax                 /* LME */
    wrmsr
    lgdt descriptors_at
    mov $0x80000003, %eax           /* CR0: PG, MP, PE */
    mov %eax, %cr0
    ljmp $8, $in_64_bits
    .code64
in_64_bits:
    mov $16, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    xor %ecx, %ecx
    xor %edx, %edx
    mov $0xe7, %eax                 /* XCR0: x87, SSE, AVX and the three of AVX-512 */
    xsetbv
    mov $0x6000000, %esp            /* bare.c: the stack ends where the heap begins */
    mov $program, %eax
    call *%rax
    .align 8
descriptors:
    .quad 0
    .quad 0x00209a0000000000        /* code of 64 bits */
    .quad 0x0000920000000000        /* data */
descriptors_at:
    .word . - descriptors - 1
    .long descriptors
    .org 510
    .word 0xaa55
