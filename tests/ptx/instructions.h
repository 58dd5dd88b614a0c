// What instructions of PTX compute, one function an instruction, by its name: `mul.wide.u32` is mul_wide<u32>. Integers
// wrap around as on a device; floating point rounds as the instruction says, so compile without contraction.
#pragma once

#include <algorithm>
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace ptx {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using s8 = int8_t;
using s16 = int16_t;
using s32 = int32_t;
using s64 = int64_t;
using f32 = float;
using f64 = double;
using b8 = u8;
using b16 = u16;
using b32 = u32;
using b64 = u64;
using pred = bool;

// Registers hold bits; instructions give them a type ------------------------------------------------------------------

template <class T>
constexpr bool is_float = std::is_floating_point_v<T>;
template <class T>
using Bits = std::conditional_t<sizeof(T) == 8, u64, u32>;  // of a float
template <class T>
constexpr u32 width = 8 * sizeof(T);

// An operand of type T: the low bits of a register or literal.
template <class T, class R>
T in(R bits) {
    if constexpr (is_float<T>) {
        static_assert(sizeof(T) == sizeof(R));
        return std::bit_cast<T>(bits);
    } else {
        return static_cast<T>(bits);
    }
}

// A result into a register: a signed one is extended by its sign, others by zeros.
template <class R, class T>
void set(R& to, T value) {
    if constexpr (is_float<T>) {
        static_assert(sizeof(T) == sizeof(R));
        to = std::bit_cast<R>(value);
    } else {
        to = static_cast<R>(value);
    }
}

// Twice as wide.
template <class T>
struct Twice;
#define TWICE(T, W)     \
    template <>         \
    struct Twice<T> {   \
        using type = W; \
    };
TWICE(u16, u32)
TWICE(s16, s32)
TWICE(u32, u64)
TWICE(s32, s64)
TWICE(u64, unsigned __int128)
TWICE(s64, __int128)
template <class T>
using Wide = typename Twice<T>::type;

// Integers ------------------------------------------------------------------------------------------------------------

template <class T>
T add(T a, T b) { return static_cast<T>(static_cast<u64>(a) + static_cast<u64>(b)); }
template <class T>
T sub(T a, T b) { return static_cast<T>(static_cast<u64>(a) - static_cast<u64>(b)); }
template <class T>
T mul_lo(T a, T b) { return static_cast<T>(static_cast<u64>(a) * static_cast<u64>(b)); }
template <class T>
Wide<T> mul_wide(T a, T b) { return static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b); }
template <class T>
T mul_hi(T a, T b) { return static_cast<T>(mul_wide(a, b) >> width<T>); }
template <class T>
T mad_lo(T a, T b, T c) { return add(mul_lo(a, b), c); }
template <class T>
T mad_hi(T a, T b, T c) { return add(mul_hi(a, b), c); }
template <class T>
Wide<T> mad_wide(T a, T b, Wide<T> c) { return add(mul_wide(a, b), c); }

template <class T>
T clamped(Wide<T> x) {
    using Limits = std::numeric_limits<T>;
    return static_cast<T>(std::clamp<Wide<T>>(x, Limits::min(), Limits::max()));
}
template <class T>
T add_sat(T a, T b) { return clamped<T>(static_cast<Wide<T>>(a) + b); }
template <class T>
T sub_sat(T a, T b) { return clamped<T>(static_cast<Wide<T>>(a) - b); }
template <class T>
T mad_hi_sat(T a, T b, T c) { return add_sat(mul_hi(a, b), c); }

// A sum of two and a carry, and the next carry.
template <class T>
T carried(T a, T b, bool carry_in, bool& carry) {
    using U = std::make_unsigned_t<T>;
    const unsigned __int128 sum = static_cast<unsigned __int128>(static_cast<U>(a)) + static_cast<U>(b) + carry_in;
    carry = sum >> width<T>;
    return static_cast<T>(sum);
}
template <class T>
T borrowed(T a, T b, bool borrow_in, bool& borrow) {
    using U = std::make_unsigned_t<T>;
    const T difference = sub(sub(a, b), static_cast<T>(borrow_in));
    borrow = static_cast<U>(a) < static_cast<U>(b) || (borrow_in && a == b);
    return difference;
}
// The carry flag is written only by instructions with .cc.
#define CARRIES(NAME, CALL, ...)                                  \
    template <class T>                                            \
    T NAME##_cc(__VA_ARGS__, bool& carry) {                       \
        const bool none = false;                                  \
        return CALL(none, carry);                                 \
    }
#define CARRIED(NAME, CALL, ...)                                  \
    template <class T>                                            \
    T NAME##_cc(__VA_ARGS__, bool& carry) {                       \
        return CALL(carry, carry);                                \
    }                                                             \
    template <class T>                                            \
    T NAME(__VA_ARGS__, bool& carry) {                            \
        bool unused;                                              \
        return CALL(carry, unused);                               \
    }
#define SUM(IN, OUT) carried(a, b, IN, OUT)
#define DIFFERENCE(IN, OUT) borrowed(a, b, IN, OUT)
#define LOW(IN, OUT) carried(mul_lo(a, b), c, IN, OUT)
#define HIGH(IN, OUT) carried(mul_hi(a, b), c, IN, OUT)
CARRIES(add, SUM, T a, T b)
CARRIED(addc, SUM, T a, T b)
CARRIES(sub, DIFFERENCE, T a, T b)
CARRIED(subc, DIFFERENCE, T a, T b)
CARRIES(mad_lo, LOW, T a, T b, T c)
CARRIES(mad_hi, HIGH, T a, T b, T c)
CARRIED(madc_lo, LOW, T a, T b, T c)
CARRIED(madc_hi, HIGH, T a, T b, T c)

// A device does not trap: x / 0 has all bits set, x % 0 is x.
template <class T>
T div(T a, T b) {
    if (b == 0) return static_cast<T>(~T{0});
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return sub<T>(0, a);
    return static_cast<T>(a / b);
}
template <class T>
T rem(T a, T b) { return b == 0 ? a : sub(a, mul_lo(div(a, b), b)); }
template <class T>
T sad(T a, T b, T c) { return add(c, a < b ? sub(b, a) : sub(a, b)); }

template <class T>
T shl(T a, u32 by) { return by >= width<T> ? T{0} : static_cast<T>(static_cast<u64>(a) << by); }
template <class T>
T shr(T a, u32 by) { return by < width<T> ? static_cast<T>(a >> by) : static_cast<T>(std::is_signed_v<T> && a < 0 ? -1 : 0); }
template <class T>
T and_(T a, T b) { return static_cast<T>(a & b); }
template <class T>
T or_(T a, T b) { return static_cast<T>(a | b); }
template <class T>
T xor_(T a, T b) { return static_cast<T>(a ^ b); }
template <class T>
T not_(T a) {
    if constexpr (std::is_same_v<T, bool>) return !a;
    else return static_cast<T>(~a);
}
template <class T>
T cnot(T a) { return a == 0; }

template <class T>
T low_mask(u32 bits) { return bits >= width<T> ? static_cast<T>(~T{0}) : static_cast<T>((u64{1} << bits) - 1); }
template <class T>
T bfe(T a, u32 position, u32 length) {
    using U = std::make_unsigned_t<T>;
    position &= 255, length &= 255;
    const bool sign = std::is_signed_v<T> && length > 0 && a >> std::min(position + length - 1, width<T> - 1) & 1;
    const u32 there = position < width<T> ? std::min(length, width<T> - position) : 0;
    const U kept = low_mask<U>(there), bits = there ? static_cast<U>(a) >> position & kept : U{0};
    return static_cast<T>(sign ? bits | static_cast<U>(~kept) : bits);
}
template <class T>
T bfi(T a, T b, u32 position, u32 length) {
    position &= 255, length &= 255;
    if (position >= width<T>) return b;
    const T mask = shl(low_mask<T>(length), position);
    return (b & ~mask) | (shl(a, position) & mask);
}
template <class T>
T bmsk_clamp(T position, T bits) { return shl(low_mask<T>(bits), position); }
template <class T>
T bmsk_wrap(T position, T bits) { return shl(low_mask<T>(bits & 31), position & 31); }
template <class T>
u32 popc(T a) { return std::popcount(a); }
template <class T>
u32 clz(T a) { return std::countl_zero(a); }
template <class T>
T brev(T a) {
    T out = 0;
    for (u32 i = 0; i < width<T>; ++i) out |= (a >> i & 1) << (width<T> - 1 - i);
    return out;
}
template <class T>
u32 bfind(T a) {
    using U = std::make_unsigned_t<T>;
    const U magnitude = static_cast<U>(std::is_signed_v<T> && a < 0 ? ~a : a);
    return magnitude ? width<T> - 1 - std::countl_zero(magnitude) : ~u32{0};
}
template <class T>
u32 bfind_shiftamt(T a) { return bfind(a) == ~u32{0} ? ~u32{0} : width<T> - 1 - bfind(a); }
template <class T>
T fns(T mask, u32 base, s32 offset) {
    if (offset == 0) return mask >> base & 1 ? base : ~T{0};
    const s32 step = offset > 0 ? 1 : -1;
    s32 left = std::abs(offset);
    for (s32 at = static_cast<s32>(base); at >= 0 && at < 32; at += step)
        if ((mask >> at & 1) && --left == 0) return static_cast<T>(at);
    return ~T{0};
}
template <class T>
T shf_l_wrap(T low, T high, u32 by) { return static_cast<T>((u64{high} << 32 | low) << (by & 31) >> 32); }
template <class T>
T shf_r_wrap(T low, T high, u32 by) { return static_cast<T>((u64{high} << 32 | low) >> (by & 31)); }
template <class T>
T shf_l_clamp(T low, T high, u32 by) { return static_cast<T>((u64{high} << 32 | low) << std::min(by, 32u) >> 32); }
template <class T>
T shf_r_clamp(T low, T high, u32 by) { return static_cast<T>((u64{high} << 32 | low) >> std::min(by, 32u)); }
template <class T>
T lop3(T a, T b, T c, u32 table) {
    T out = 0;
    for (u32 row = 0; row < 8; ++row)
        if (table >> row & 1) out |= (row & 4 ? a : ~a) & (row & 2 ? b : ~b) & (row & 1 ? c : ~c);
    return out;
}
template <class T>
T prmt(T a, T b, T selector) {
    T out = 0;
    for (u32 i = 0; i < 4; ++i) {
        const u32 choice = selector >> 4 * i & 15;
        const u32 byte = (u64{b} << 32 | a) >> 8 * (choice & 7) & 255;
        out |= (choice & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
    }
    return out;
}

// Floating point ------------------------------------------------------------------------------------------------------

// A function in another rounding mode; what is volatile is read and written between the two changes of it.
template <int MODE, class To, class F, class T>
To rounded(F function, T a, T b = {}, T c = {}) {
    volatile T x = a, y = b, z = c;
    std::fesetround(MODE);
    volatile To out = function(x, y, z);
    std::fesetround(FE_TONEAREST);
    return out;
}

#define IN_MODES(NAME, CALL, ...)                                                  \
    template <class T>                                                             \
    T NAME##_rn(__VA_ARGS__) { return CALL; }                                      \
    template <class T>                                                             \
    T NAME##_rz(__VA_ARGS__) { return IN_MODE(FE_TOWARDZERO, CALL); }              \
    template <class T>                                                             \
    T NAME##_rm(__VA_ARGS__) { return IN_MODE(FE_DOWNWARD, CALL); }                \
    template <class T>                                                             \
    T NAME##_rp(__VA_ARGS__) { return IN_MODE(FE_UPWARD, CALL); }
#define IN_MODE(MODE, CALL) rounded<MODE, T>([](T a, [[maybe_unused]] T b, [[maybe_unused]] T c) { return CALL; }, a, b, c)
IN_MODES(add, a + b, T a, T b, T c = 0)
IN_MODES(sub, a - b, T a, T b, T c = 0)
IN_MODES(mul, a * b, T a, T b, T c = 0)
IN_MODES(div, a / b, T a, T b, T c = 0)
IN_MODES(fma, std::fma(a, b, c), T a, T b, T c)
IN_MODES(sqrt, std::sqrt(a), T a, T b = 0, T c = 0)
IN_MODES(rcp, T{1} / a, T a, T b = 0, T c = 0)


template <class T>
T neg(T a) {
    if constexpr (is_float<T>) return -a;
    else return sub<T>(0, a);
}
template <class T>
T abs(T a) {
    if constexpr (is_float<T>) return std::fabs(a);
    else return a < 0 ? neg(a) : a;
}
template <class T>
T copysign(T sign, T magnitude) { return std::copysign(magnitude, sign); }

// Of a number and NaN, the number; -0 is below +0.
template <class T>
T min(T a, T b) {
    if constexpr (is_float<T>) {
        if (std::isnan(a)) return b;
        if (std::isnan(b)) return a;
        if (a == b) return std::signbit(a) ? a : b;
    }
    return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
    if constexpr (is_float<T>) {
        if (std::isnan(a)) return b;
        if (std::isnan(b)) return a;
        if (a == b) return std::signbit(a) ? b : a;
    }
    return a < b ? b : a;
}

// Seeds of divisions and roots are known to about 20 bits only, the upper half of a double; what is computed from them must
// not depend on the rest. Tests move them by some units of the last of those bits.
inline s64 seed_moves_by = 0;

inline f64 seed(f64 exact) {
    if (std::isnan(exact)) return exact;
    const bool flushed = std::fpclassify(exact) == FP_SUBNORMAL;
    if (flushed || exact == 0 || std::isinf(exact)) return flushed ? std::copysign(0.0, exact) : exact;
    return std::bit_cast<f64>((std::bit_cast<u64>(exact) + (static_cast<u64>(seed_moves_by) << 32)) & ~u64{0xFFFFFFFF});
}
inline f64 upper(f64 x) {
    const f64 kept = std::bit_cast<f64>(std::bit_cast<u64>(x) & ~u64{0xFFFFFFFF});
    return std::fpclassify(kept) == FP_SUBNORMAL ? std::copysign(0.0, x) : kept;
}
template <class T>
T rcp_approx_ftz(T a) { return seed(1.0 / upper(a)); }
template <class T>
T rsqrt_approx_ftz(T a) { return seed(1.0 / std::sqrt(upper(a))); }

// Comparisons and choices ---------------------------------------------------------------------------------------------

#define COMPARES(NAME, OP)                                         \
    template <class T>                                             \
    bool setp_##NAME(T a, T b) { return a OP b; }                  \
    template <class T>                                             \
    bool setp_##NAME##u(T a, T b) { return std::isnan(a) || std::isnan(b) || a OP b; }
COMPARES(eq, ==)
COMPARES(lt, <)
COMPARES(le, <=)
COMPARES(gt, >)
COMPARES(ge, >=)
template <class T>
bool setp_ne(T a, T b) {
    if constexpr (is_float<T>)
        if (std::isnan(a) || std::isnan(b)) return false;
    return a != b;
}
template <class T>
bool setp_neu(T a, T b) { return a != b; }
template <class T>
bool setp_num(T a, T b) { return !std::isnan(a) && !std::isnan(b); }
template <class T>
bool setp_nan(T a, T b) { return std::isnan(a) || std::isnan(b); }

// What `set` writes for yes.
template <class T>
T yes(bool is) {
    if constexpr (is_float<T>) return is ? 1 : 0;
    else return is ? static_cast<T>(~T{0}) : T{0};
}
template <class T>
T selp(T a, T b, bool first) { return first ? a : b; }
template <class T, class C>
T slct(T a, T b, C c) { return c >= 0 ? a : b; }
template <class T>
bool testp_finite(T a) { return std::isfinite(a); }
template <class T>
bool testp_infinite(T a) { return std::isinf(a); }
template <class T>
bool testp_number(T a) { return !std::isnan(a); }
template <class T>
bool testp_notanumber(T a) { return std::isnan(a); }
template <class T>
bool testp_normal(T a) { return std::isnormal(a); }
template <class T>
bool testp_subnormal(T a) { return std::fpclassify(a) == FP_SUBNORMAL; }

// Conversions ---------------------------------------------------------------------------------------------------------

template <class To, class From>
To cvt(From x) { return static_cast<To>(x); }
template <class To, class From>
To cvt_sat(From x) {
    using Limits = std::numeric_limits<To>;
    return static_cast<To>(std::clamp<__int128>(x, Limits::min(), Limits::max()));
}
// A float that is whole already, to an integer or a float.
template <class To, class From>
To whole(From x) {
    if constexpr (is_float<To>) {
        return x;
    } else {
        using Limits = std::numeric_limits<To>;
        if (std::isnan(x)) return sizeof(From) == 8 || sizeof(To) == 8 ? static_cast<To>(u64{1} << (width<To> - 1)) : To{0};
        const f64 beyond = std::ldexp(1.0, std::is_signed_v<To> ? width<To> - 1 : width<To>);
        return x >= beyond ? Limits::max() : x <= static_cast<f64>(Limits::min()) ? Limits::min() : static_cast<To>(x);
    }
}
template <class To, class From>
To cvt_rni(From x) { return whole<To>(std::nearbyint(x)); }
template <class To, class From>
To cvt_rzi(From x) { return whole<To>(std::trunc(x)); }
template <class To, class From>
To cvt_rmi(From x) { return whole<To>(std::floor(x)); }
template <class To, class From>
To cvt_rpi(From x) { return whole<To>(std::ceil(x)); }
#define CONVERTS(NAME, MODE)            \
    template <class To, class From>     \
    To cvt_##NAME(From x) { return rounded<MODE, To>([](From a, From, From) { return static_cast<To>(a); }, x); }
CONVERTS(rz, FE_TOWARDZERO)
CONVERTS(rm, FE_DOWNWARD)
CONVERTS(rp, FE_UPWARD)
template <class To, class From>
To cvt_rn(From x) { return static_cast<To>(x); }

}  // namespace ptx
