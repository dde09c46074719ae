! SPDX-License-Identifier: MIT
! Calls the user material like Abaqus: reads NTENS and then strains, a row each, and writes for each
! the stress, the tangent by columns, and PNEWDT. Each strain is one increment from the previous one.

program driver
  implicit none
  integer :: ntens, status
  real(8), allocatable :: strain(:), last(:), stress(:), tangent(:, :)
  real(8) :: pnewdt, zero(3), unit(3, 3), none(1), sse, spd, scd, rpl, drpldt
  real(8), allocatable :: other(:)
  character(80) :: material

  read *, ntens
  allocate (strain(ntens), last(ntens), stress(ntens), tangent(ntens, ntens), other(ntens))
  last = 0d0
  stress = 0d0
  zero = 0d0
  none = 0d0
  unit = 0d0
  material = 'LEARNED'
  do
    read (*, *, iostat=status) strain
    if (status /= 0) exit
    pnewdt = 1d0
    call umat(stress, none, tangent, sse, spd, scd, rpl, other, other, drpldt, last, strain - last, zero(1:2), 1d0, 0d0, &
      0d0, none, none, material, merge(2, 3, ntens == 3), 1, ntens, 1, none, 1, zero, unit, pnewdt, 1d0, unit, unit, 1, 1, &
      1, 1, [1, 1, 0, 0], 1)
    print '(*(es27.17e3))', stress, tangent, pnewdt
    if (pnewdt == 1d0) last = strain
  end do
end program
