// The search's first look: which of many scores are not below the floors of their rows.

// Row and column of every score that is not below the floor of its row, or is no number, in any order; those beyond
// `room` are counted only.
extern "C" __global__ void sift(
    const float* scores, const float* floors, int columns, long long count, int room, int* total, int* found
) {
    const long long index = 4 * global_place();
    const Four four = read_four(scores, index, count);
    for (int place = 0; place < 4 && index + place < count; place++) {
        const int row = (int)((index + place) / columns);
        if (!(four.at[place] < floors[row])) {
            const int slot = atomicAdd(total, 1);
            if (slot < room) {
                found[2 * slot] = row;
                found[2 * slot + 1] = (int)((index + place) % columns);
            }
        }
    }
}
