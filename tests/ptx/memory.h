// Loads, stores and atomics. Addresses of all memory but shared are the host's own. An address that is null or not a
// multiple of the size is an error, as on a device; in shared memory so is one outside, what nobody has written, and a race:
// two threads at one byte, one of them writing, not both by atomics, with no barrier of their block or warp between them.
#pragma once

#include "machine.h"

namespace ptx {

// Shared memory -------------------------------------------------------------------------------------------------------

constexpr u32 MANY = ~u32{0};

enum class Access { READ, WRITE, ATOMIC };

inline bool after(const Use& use) {  // whether the block or the warp met since then
    const u32 warp = me->number / WARP;
    return use.epoch != me->block->epoch || (use.warp == warp && use.warp_epoch < me->block->warp_epoch[warp]);
}

inline void note(Use& use, bool atomic) {
    const u32 warp = me->number / WARP;
    const bool fresh = after(use);
    use = {fresh || use.thread == me->number ? me->number : MANY, fresh || use.warp == warp ? warp : MANY, me->block->epoch,
           me->block->warp_epoch[warp], atomic && (fresh || use.atomic)};
}

inline void check_race(u64 offset, u64 bytes, Access access, bool atomic, int line) {
    for (u64 i = offset; i < offset + bytes; ++i) {
        Uses& uses = me->block->uses[i];
        const auto races = [&](const Use& use) {
            return use.thread != me->number && !after(use) && !(atomic && use.atomic);
        };
        const bool writes = access != Access::READ;
        if (access != Access::WRITE && uses.write.epoch < me->block->began)
            fail("line %d: byte %llu of shared memory, which nobody has written", line, static_cast<unsigned long long>(i));
        if (races(uses.write) || (writes && races(uses.read)))
            fail("line %d: race at byte %llu of shared memory", line, static_cast<unsigned long long>(i));
        if (access != Access::WRITE) note(uses.read, atomic);
        if (writes) note(uses.write, atomic);
    }
}

inline u8* shared_at(u64 offset, u64 bytes, Access access, bool atomic, int line) {
    if (offset + bytes > me->block->shared.size())
        fail("line %d: byte %llu of %zu bytes of shared memory", line, static_cast<unsigned long long>(offset),
             me->block->shared.size());
    check_race(offset, bytes, access, atomic, line);
    return me->block->shared.data() + offset;
}

inline u64 generic_of_shared(u64 offset) { return reinterpret_cast<u64>(me->block->shared.data()) + static_cast<u32>(offset); }
inline u64 shared_of_generic(u64 address) { return address - reinterpret_cast<u64>(me->block->shared.data()); }
inline bool is_shared(u64 address) { return shared_of_generic(address) < me->block->shared.size(); }

// Every kind of memory ------------------------------------------------------------------------------------------------

enum class Space { ANY, SHARED, OTHER };

template <Space SPACE>
__attribute__((noinline)) u8* place(u64 address, u64 bytes, Access access, bool atomic, int line) {
    if (address % bytes) fail("line %d: address %#llx is no multiple of %llu", line, static_cast<unsigned long long>(address),
                              static_cast<unsigned long long>(bytes));
    if (SPACE == Space::SHARED) return shared_at(static_cast<u32>(address), bytes, access, atomic, line);
    if (SPACE == Space::ANY && is_shared(address)) return shared_at(shared_of_generic(address), bytes, access, atomic, line);
    if (address < 4096) fail("line %d: null pointer and %llu", line, static_cast<unsigned long long>(address));
    return reinterpret_cast<u8*>(address);
}

template <class T, u32 N>
struct Vector {
    T of[N];
};

template <Space SPACE, class T, u32 N = 1>
Vector<T, N> load(u64 address, bool strong, int line) {
    if (strong) yield();
    Vector<T, N> out;
    std::memcpy(&out, place<SPACE>(address, sizeof out, Access::READ, strong, line), sizeof out);
    return out;
}

template <Space SPACE, class T, u32 N = 1>
void store(u64 address, Vector<T, N> value, bool strong, int line) {
    std::memcpy(place<SPACE>(address, sizeof value, Access::WRITE, strong, line), &value, sizeof value);
}

// Atomics -------------------------------------------------------------------------------------------------------------

template <class T>
T atomic_add(T old, T by) {
    if constexpr (is_float<T>) return old + by;
    else return add(old, by);
}
template <class T>
T atomic_min(T old, T by) { return min(old, by); }
template <class T>
T atomic_max(T old, T by) { return max(old, by); }
template <class T>
T atomic_and(T old, T by) { return old & by; }
template <class T>
T atomic_or(T old, T by) { return old | by; }
template <class T>
T atomic_xor(T old, T by) { return old ^ by; }
template <class T>
T atomic_exch(T, T by) { return by; }
template <class T>
T atomic_inc(T old, T most) { return old >= most ? 0 : old + 1; }
template <class T>
T atomic_dec(T old, T most) { return old == 0 || old > most ? most : old - 1; }
template <class T>
T atomic_cas(T old, T expected, T wanted) { return old == expected ? wanted : old; }

// Returns what was there; others may come first.
template <Space SPACE, class T, class F>
T atomic(u64 address, int line, F function) {
    if (random_word() % 8 == 0) yield();
    u8* at = place<SPACE>(address, sizeof(T), Access::ATOMIC, true, line);
    T old;
    std::memcpy(&old, at, sizeof old);
    const T wanted = function(old);
    std::memcpy(at, &wanted, sizeof wanted);
    return old;
}

}  // namespace ptx
