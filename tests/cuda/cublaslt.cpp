// What the engine calls of cuBLASLt, on the processor, by cuBLASLt's documentation: column-major matrices, D = α ·
// op(A) · op(B) + β · C. Refuses descriptions that do not fit together, and addresses that are not aligned as was
// said.

#include <cstdint>
#include <cstring>

namespace {

const int SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15;
const int FLOAT = 0, BFLOAT16 = 14, COMPUTE_FLOAT = 68;

struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t leading;
};

struct Description {
    int compute, scale;
    int transposed[2];
};

struct Preference {
    uint32_t alignments[4];
};

// The algorithm keeps the alignments that it was chosen for.
struct Algorithm {
    uint64_t data[8];
};

struct Choice {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

float value(const void* matrix, const Layout& layout, uint64_t row, uint64_t column) {
    const uint64_t place = row + column * layout.leading;
    if (layout.type == FLOAT) {
        return static_cast<const float*>(matrix)[place];
    }
    const uint32_t bits = (uint32_t) static_cast<const uint16_t*>(matrix)[place] << 16;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

bool fits(const Description& product, const Layout& a, const Layout& b, const Layout& d) {
    const uint64_t m = product.transposed[0] ? a.columns : a.rows, of_a = product.transposed[0] ? a.rows : a.columns;
    const uint64_t n = product.transposed[1] ? b.rows : b.columns, of_b = product.transposed[1] ? b.columns : b.rows;
    const bool types = a.type == b.type && (a.type == FLOAT || a.type == BFLOAT16) && d.type == FLOAT;
    const bool leading = a.leading >= (int64_t)a.rows && b.leading >= (int64_t)b.rows && d.leading >= (int64_t)d.rows;
    return types && leading && product.compute == COMPUTE_FLOAT && product.scale == FLOAT && of_a == of_b &&
        d.rows == m && d.columns == n;
}

}  // namespace

extern "C" {

int cublasLtCreate(void** handle) {
    static int only;
    *handle = &only;
    return SUCCESS;
}

int cublasLtDestroy(void*) {
    return SUCCESS;
}

int cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    *layout = new Layout{type, rows, columns, leading};
    return SUCCESS;
}

int cublasLtMatrixLayoutDestroy(Layout* layout) {
    delete layout;
    return SUCCESS;
}

int cublasLtMatmulDescCreate(Description** description, int compute, int scale) {
    *description = new Description{compute, scale, {0, 0}};
    return SUCCESS;
}

// 3 and 4 tell whether A and B are transposed.
int cublasLtMatmulDescSetAttribute(Description* description, int attribute, const void* value, size_t size) {
    if ((attribute != 3 && attribute != 4) || size != sizeof(int)) {
        return INVALID_VALUE;
    }
    memcpy(&description->transposed[attribute - 3], value, size);
    return SUCCESS;
}

int cublasLtMatmulDescDestroy(Description* description) {
    delete description;
    return SUCCESS;
}

int cublasLtMatmulPreferenceCreate(Preference** preference) {
    *preference = new Preference{{256, 256, 256, 256}};
    return SUCCESS;
}

// 1 is the size of the workspace, 5 to 8 the alignments of A, B, C and D.
int cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* value, size_t size) {
    if (attribute == 1) {
        return size == sizeof(uint64_t) ? SUCCESS : INVALID_VALUE;
    }
    if (attribute < 5 || attribute > 8 || size != sizeof(uint32_t)) {
        return INVALID_VALUE;
    }
    memcpy(&preference->alignments[attribute - 5], value, size);
    return SUCCESS;
}

int cublasLtMatmulPreferenceDestroy(Preference* preference) {
    delete preference;
    return SUCCESS;
}

int cublasLtMatmulAlgoGetHeuristic(
    void*, const Description* product, const Layout* a, const Layout* b, const Layout*, const Layout* d,
    const Preference* preference, int, Choice* choice, int* count
) {
    *choice = Choice{};
    *count = fits(*product, *a, *b, *d);
    for (int index = 0; index < 4; index++) {
        choice->algorithm.data[index] = preference->alignments[index];
    }
    return *count ? SUCCESS : NOT_SUPPORTED;
}

int cublasLtMatmul(
    void*, const Description* product, const float* alpha, const void* a, const Layout* of_a, const void* b,
    const Layout* of_b, const float* beta, const void* c, const Layout*, float* d, const Layout* of_d,
    const Algorithm* algorithm, void* workspace, size_t, void*
) {
    const void* addresses[4] = {a, b, c, d};
    for (int index = 0; index < 4; index++) {
        if ((uint64_t)addresses[index] % algorithm->data[index] != 0) {
            return INVALID_VALUE;
        }
    }
    if (!fits(*product, *of_a, *of_b, *of_d) || !workspace) {
        return INVALID_VALUE;
    }
    const uint64_t depth = product->transposed[0] ? of_a->rows : of_a->columns;
    for (uint64_t column = 0; column < of_d->columns; column++) {
        for (uint64_t row = 0; row < of_d->rows; row++) {
            float sum = 0.0f;
            for (uint64_t inner = 0; inner < depth; inner++) {
                const float left = product->transposed[0] ? value(a, *of_a, inner, row) : value(a, *of_a, row, inner);
                const float right =
                    product->transposed[1] ? value(b, *of_b, column, inner) : value(b, *of_b, inner, column);
                sum += left * right;
            }
            const uint64_t place = row + column * of_d->leading;
            const float before = *beta == 0.0f ? 0.0f : *beta * static_cast<const float*>(c)[place];
            d[place] = *alpha * sum + before;
        }
    }
    return SUCCESS;
}
}
