! SPDX-License-Identifier: MIT
! A learned RVE as a user material of Abaqus: total strain to stress and consistent tangent, by the C file of
! spon.export_c. Small strains; plane strain (NTENS = 4: 11, 22, 33, 12) and 3D (6: 11, 22, 33, 12, 13, 23), with
! engineering shears. Strains outside the trained range request half the increment.
!
!     cc -O3 -c cell.c && gfortran -O2 -c umat.f90

module learned_cell
  use iso_c_binding
  implicit none

  interface
    integer(c_int) function cell_response(n, strain, stress, tangent) bind(c)
      import
      integer(c_long), value :: n
      real(c_double), intent(in) :: strain(*)
      real(c_double), intent(out) :: stress(*), tangent(*)
    end function
  end interface

  real(c_double), parameter :: root2 = 1.4142135623730951d0
  ! Mandel components (xx, yy, √2 xy) and (xx, yy, zz, √2 yz, √2 xz, √2 xy): their places among those of Abaqus, and their
  ! factors relative to the stress components. An engineering shear is √2 times the Mandel component of the strain.
  integer, parameter :: place_2d(3) = [1, 2, 4], place_3d(6) = [1, 2, 3, 6, 5, 4]
  real(c_double), parameter :: factor_2d(3) = [1d0, 1d0, root2], factor_3d(6) = [1d0, 1d0, 1d0, root2, root2, root2]
end module

subroutine umat(stress, statev, ddsdde, sse, spd, scd, rpl, ddsddt, drplde, drpldt, stran, dstran, time, dtime, temp, &
    dtemp, predef, dpred, cmname, ndi, nshr, ntens, nstatv, props, nprops, coords, drot, pnewdt, celent, dfgrd0, dfgrd1, &
    noel, npt, layer, kspt, jstep, kinc)
  use learned_cell
  implicit none
  integer, intent(in) :: ndi, nshr, ntens, nstatv, nprops, noel, npt, layer, kspt, jstep(4), kinc
  character(80), intent(in) :: cmname
  real(8), intent(inout) :: stress(ntens), statev(nstatv), sse, spd, scd, pnewdt
  real(8), intent(out) :: ddsdde(ntens, ntens), rpl, ddsddt(ntens), drplde(ntens), drpldt
  real(8), intent(in) :: stran(ntens), dstran(ntens), time(2), dtime, temp, dtemp, predef(*), dpred(*), props(nprops), &
    coords(3), drot(3, 3), celent, dfgrd0(3, 3), dfgrd1(3, 3)

  select case (ntens)
  case (4)
    call respond(3, place_2d, factor_2d)
  case (6)
    call respond(6, place_3d, factor_3d)
  case default
    print '(a, i0)', 'learned cell: need plane strain (NTENS = 4) or 3D (6), not NTENS = ', ntens
    pnewdt = 0.1d0
  end select

contains

  subroutine respond(d, place, factor)
    integer, intent(in) :: d, place(d)
    real(c_double), intent(in) :: factor(d)
    real(c_double) :: e(d), s(d), c(d, d)
    integer :: i, j

    e = (stran(place) + dstran(place)) / factor
    if (cell_response(1_c_long, e, s, c) > 0) then
      pnewdt = min(pnewdt, 0.5d0)
      return
    end if
    ! In plane strain the model does not predict the stress along 33, which does no work.
    stress = 0d0
    ddsdde = 0d0
    stress(place) = s / factor
    do j = 1, d
      do i = 1, d
        ddsdde(place(i), place(j)) = c(i, j) / (factor(i) * factor(j))
      end do
    end do
  end subroutine
end subroutine
