// Where ids of the sessions of cells begin.
#pragma once

#include <vector>

#include "job.h"

// Ids of the sessions with ordinal 0, int64[cells], in the first layout; -1 where it has no room for client and window.
inline std::vector<int64_t> first_ids(const SgJob& job, const SgSessions& sessions) {
    const int64_t* layout = sessions.layouts;
    std::vector<int64_t> ids(job.cells, -1);
    for (int64_t cell = 0; cell < job.cells; ++cell) {
        const uint64_t client = job.client[cell], window = static_cast<uint64_t>(sessions.window[cell]);
        if (client >> layout[0] | window >> layout[1]) continue;
        ids[cell] = static_cast<int64_t>((client << layout[1] | window) << layout[2]) + layout[3];
    }
    return ids;
}
