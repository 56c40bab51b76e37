// The former place of athanor/data/images/image_folder.h.
#pragma once

#include "athanor/data/images/image_folder.h"
