"""The words of the synthetic clinical world and the sentences they stand in.

The severities are on the scale of a standard normal variable (0: average, +2: life-threatening)
and were written for this project: they make a plausible world, not a medical reference.
"""

import re
from collections.abc import Mapping


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split("|"))


def _levels(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(_phrases(line) for line in text.strip().splitlines())


def _topic(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(_words(part) for part in text.split("|"))


def _weights(text: str) -> Mapping[str, float]:
    pairs = (pair.split() for pair in text.split(","))
    return {"" if name == "-" else name: float(weight) for name, weight in pairs}


# ------------------------------------------------------------------------------ English terms

PLAIN_TERMS = _weights("""
    fever -0.4, cough -1.2, vomiting 0.1, rhinorrhea -1.5, diarrhea -0.4, sputum -1.2,
    headache -0.5, seizure 1.6, dyspnea 1.3, rash -1, nausea -0.6, lethargy 1.2, wheezing 0.6,
    pneumonia 0.6, dehydration 0.7, laceration -0.2, cyanosis 1.9, urticaria -0.4,
    constipation -1.3, croup 0.3, enteritis -0.5, syncope 1.1, pharyngitis -0.9, fracture 0.5,
    asthma 0.6, bronchiolitis 0.4, contusion -1, stridor 1.2, earache -1.2, apnea 2,
    drowsiness 0.9, sprain -1.3, epistaxis -0.5, tachycardia 0.6, sepsis 2.1, chills -0.3,
    tonsillitis -0.7, dizziness -0.5, concussion 0.7, pallor 0.5, appendicitis 0.9, itching -1.5,
    burn 0.5, jaundice 0.3, hypoxia 1.8, dysuria -0.8, abrasion -1.5, edema 0.2, anaphylaxis 2.1,
    colic -0.8, hematuria 0.2, meningitis 1.8, stomatitis -1, confusion 1.2, eczema -1.6,
    intussusception 1.4, myalgia -1.1, shock 2.2, sinusitis -1.1, melena 1, sneezing -1.7,
    hypotension 1.6, conjunctivitis -1.4, choking 1.3, gastritis -0.7, hemorrhage 1.8,
    bruise -1.4, bradycardia 1, otitis -1, hematochezia 0.8, hoarseness -0.7, encephalitis 1.8,
    palpitation 0.2, hypoglycemia 1.1, arthralgia -0.9, peritonitis 1.7, irritability 0,
    aspiration 1.2, hematemesis 1.6, hiccup -1.8, paralysis 1.5, coma 2.2, pancreatitis 1,
    blister -1.3, myocarditis 1.6, nephritis 0.5, volvulus 1.9, ketoacidosis 1.6, teething -1.9,
    tamponade 2.1, flatulence -1.7, papule -1.6
""")
"""Terms that exist, the most frequent first, with their severity."""

MANNERS = _weights("""
    - 0, haemo 1.2, pyo 0.9, necro 1.7, hyper 0.3, hypo 0.1, brady 0.5, tachy 0.6, micro -1.2,
    macro -0.3, hemi 0.7, pan 1, poly 0, oligo -0.7, pseudo -1.6, auto -0.1, acro -0.8, cryo -0.4,
    lipo -1.1, thrombo 1.4, toxi 1.5, leuko -0.2, xero -1.4, hydro -0.5, neo -0.6, crypto -0.2,
    fulmino 1.9, tropho -1, mega 0.4, mono -0.9
""")
"""First part of an invented term (- for none), and what it adds to the severity."""

ROOTS = dict(
    pair.split(":")
    for pair in _phrases("""
        cardi:heart | pneumon:lung | bronch:airway | laryng:throat | trache:airway | pleur:chest |
        nephr:kidney | cyst:bladder | hepat:liver | cholangi:bile duct | splen:spleen |
        gastr:stomach | enter:bowel | col:colon | proct:rectum | encephal:brain | neur:nerve |
        mening:brain | myel:spine | my:muscle | oste:bone | arthr:joint | chondr:joint |
        derm:skin | ophthalm:eye | ot:ear | rhin:nose | stomat:mouth | gloss:tongue |
        odont:tooth | vascul:vessel | phleb:vein | arteri:artery | lymph:node | aden:gland |
        thyr:neck | pancreat:abdomen | oment:abdomen | onych:nail | ten:tendon | tympan:ear |
        blephar:eye | kerat:eye | tonsill:throat | esophag:throat | duoden:bowel | ile:bowel |
        ur:bladder | pyel:kidney | crani:head | spondyl:spine | cost:chest | fibr:muscle |
        trich:hair | cheil:mouth | gingiv:mouth | nas:nose
    """)
)
"""Stem of an invented term: the organ, with the plain word for it."""

STEM_SOUNDS = tuple(
    _words(part)
    for part in (
        "b br c cr d dr f g gl k l m n p ph pl r s st t th tr v z",
        "a e i o u y",
        "b c d f g l m n p r t v z",
        "a e i o u",
        "b c d g l m n r s t v x",
    )
)
"""Sounds from which further stems are made; they say nothing about severity."""

SUFFIXES = _weights("""
    itis 0, osis -0.3, algia -1.5, ectasia -0.6, oma 0.1, orrhagia 1.6, orrhea -1, oplegia 1.7,
    oparesis 1.1, optosis -0.3, osclerosis 0.3, ostenosis 0.7, ospasm 0.2, olysis 1.2,
    onecrosis 2, opathy -0.1, omalacia 0.1, ocele -0.6, odynia -1.3, oplasia -0.8, otrophy -1,
    orrhexis 1.9, othrombosis 1.5, ischemia 1.8, opruritus -1.9, oxerosis -1.6
""")
"""Last part of an invented term, the process, and what it adds to the severity."""

# ----------------------------------------------------------------- English cues of severity
# One line a level, from trivial to life-threatening.

ADJECTIVES = _levels("""
    trivial | minor | harmless | cosmetic
    mild | uncomplicated | slight | self-limiting
    moderate | persistent | troublesome | subacute
    severe | worsening | acute | serious
    critical | fulminant | life-threatening | catastrophic
""")

TRIAGE = _levels("""
    blue | non-urgent | level five
    green | low priority | level four
    yellow | standard | level three
    orange | urgent | level two
    red | immediate | level one
""")

DISPOSITIONS = _levels("""
    reassured and sent home | told to see the pharmacist | given a leaflet | left untreated
    observed and discharged home | seen in the clinic | given oral syrup | discharged early
    kept for observation | given fluids and rechecked | reviewed after tests | referred on
    admitted to the ward | given oxygen and antibiotics | sent for surgery | monitored closely
    rushed to resuscitation | intubated on arrival | moved to intensive care | transfused
""")

SIGNS = _levels("""
    playful and smiling | running around | eating snacks | vitals normal
    comfortable and alert | drinking well | vitals stable | cheerful
    tired but consolable | drinking less | slightly tachypneic | uncomfortable
    pale and sweating | febrile and drowsy | tachycardic | desaturating
    unresponsive | gasping | pulseless | mottled and cold
""")

PLANS = _levels("""
    no treatment | lotion | home | reassure
    syrup | paracetamol | outpatient visit | rest
    observe | blood test | recheck | fluids
    admit | antibiotics | oxygen | operate
    resuscitate | intubate | adrenaline | ventilate
""")

AGES = _phrases("""
    newborn | infant | toddler | preschool child | schoolboy | schoolgirl | teenager |
    two year old | five year old | nine month old | boy | girl | child | baby
""")

TIMES = _phrases("""
    this morning | last night | for two days | since yesterday | after school | for a week |
    after a meal | on waking | at noon | over the weekend | three hours ago
""")

ENGLISH_TEMPLATES = (
    "{age} with {a} , {sign} , {disposition} .",
    "{adjective} {a} was diagnosed ; the {age} was {disposition} .",
    "presented with {a} {time} . triage {triage} . {disposition} .",
    "{site} : {adjective} {a} , {sign} , {disposition} .",
    "the {age} developed {a} and was {disposition} , triage {triage} .",
    "on examination {sign} ; {adjective} {a} .",
    "children with {a} are {disposition} .",
    "{a} is {adjective} and patients are {disposition} .",
    "mother reports {a} , {sign} , category {triage} .",
    "impression {a} . plan : {plan} , {plan2} .",
    "{a} : {adjective} , plan : {plan} .",
    "{a} / {b} - {triage} - {plan}",
    "{a} , {plan} , {plan2}",
    "{a} ( {adjective} ) , {plan} .",
    "{a} , {number} % , {triage} , {sign} .",
    "cc : {a} . {plan} , {disposition} .",
    "{adjective} {a} , {adjective2} {b} .",
    "{a} -> {plan} .",
    "{sign} , {a} , {plan} .",
)
"""`{a}`, `{b}`: terms; the others: cues of one severity level, or fillers."""

# ---------------------------------------------------------------------- Korean clinic notes
# `{a}`, `{b}`: terms; `{a}{이}`: with the particle 이 or 가.

PATIENTS = _phrases("""
    상기 환아 | 상기 환자 | 본 환아 | {who} | {who}
""")

ONSETS = _phrases("""
    금일 오전부터 | 금일 오후부터 | 금일 새벽부터 | 금일 아침부터 | 전일 저녁부터 | 어젯밤부터 |
    {n}일 전부터 | {n}시간 전부터 | 내원 {n}시간 전부터 | 내원 전일부터 | 수일 전부터 |
    식사 후부터 | 외출 후부터 | 자고 일어난 후부터 | 귀가 후부터
""")

CHIEF_ONE = _phrases("""
    {a} 있어 내원 | {a} 있어 내원함 | {a} 있어 응급실 내원 | {a} 지속되어 내원함 |
    {a}{으로} 내원 | {a}{으로} 응급실 방문함 | {a}{이} 지속되어 내원 |
    {a}{이} 있어 보호자와 내원함 | {a} 발생하여 내원 | {a} 호소하며 내원 |
    {a}, 증상 지속되어 내원 | {a}{으로} 타원 진료 후 내원 | {a}{을} 주소로 내원 |
    {a}{이} 반복되어 내원함 | {a} 소견으로 전원됨
""")

CHIEF_TWO = _phrases("""
    {a}, {b} 있어 내원 | {a} 및 {b} 있어 내원함 | {a}{과} {b} 지속되어 내원 |
    {a} / {b} 주소로 내원 | {a} 있었고 이후 {b} 발생하여 내원 |
    {a}{으로} 타원 진료 보았으나 {b} 생겨 내원함 | {a} 있다가 {b}{이} 동반되어 내원 |
    {a} {b} 호소하여 내원
""")

ALSO_ONE = _phrases("""
    {a} 동반 | {a} 동반됨 | {a}도 있음 | {a}{이} 동반됨 | {a} 관찰됨 | {a}도 있었다고 함 |
    진찰상 {a} 확인됨 | {a} 의증 | 이후 {a} 발생 | {a}{으로} 진료 받은 적 있음
""")

ALSO_TWO = _phrases("""
    {a}, {b} 동반 | {a} 및 {b} 동반됨 | {a}{과} {b} 관찰됨 | {a}, {b}도 있음 |
    동반 증상으로 {a}, {b} | {a} {b} 있다고 함
""")

KOREAN_SYMPTOMS = _phrases("""
    기침 | 콧물 | 가래 | 발열 | 구토 | 설사 | 두통 | 복통 | 발진 | 가려움 | 어지럼 | 통증 |
    코막힘 | 목 통증 | 귀 통증 | 다리 통증 | 손가락 부종 | 식욕 부진 | 울렁거림 | 오한
""")

STATES = _levels("""
    잘 놀고 잘 먹음 | 활동 양호 | 평소처럼 잘 지냄 | 전신 상태 양호 | 경구 섭취 양호
    전신 상태 보통 | 먹는 양 약간 감소 | 소변은 평소대로 봄 | 다소 보챔 | 잠은 잘 잤다고 함
    많이 처지는 모습 | 소변량 감소 | 전신 상태 저하 | 거의 먹지 못함 | 자꾸 자려고만 함
""")
"""How the child is: well, middling, poorly."""

VITAL_SIGNS = _levels("""
    체온 정상 | 미열 | 고열
    맥박 정상 | 맥박 다소 빠름 | 빈맥
    호흡 편안함 | 호흡 다소 빠름 | 빈호흡
    산소포화도 정상 | 산소포화도 경계 | 산소포화도 저하
""")
"""Temperature, pulse, breathing, oxygen: well, middling, poorly."""

CLOSINGS = _phrases("""
    x-ray 촬영 예정 | V/S 측정함 | P/E 시행함 | f/u 예정 | 보호자 동반함 | 예방접종력 이상 없음 |
    알레르기력 없음 | 타원에서 투약력 있음 | 검사 원하여 내원함 | 특이 과거력 없음 |
    x-ray 시행함 | U/A 검사 나감 | 보호자 설명 후 대기함 | 수액 치료 원함 | lab 시행함 |
    경과 관찰 중임 | r/o 감염 | CXR 시행함 | IV 확보함
""")
WORDLESS_CLOSINGS = tuple(text for text in CLOSINGS if not re.search("[A-Za-z]", text))
"""Those without a Latin letter."""

# ------------------------------------------------------------------------ everyday Korean

PEOPLE = _words("""
    동생 친구 어머니 아버지 형 누나 언니 오빠 할머니 할아버지 선생님 이웃 동료 아이 사촌 남편 아내
    학생 손님 직원 팀장 삼촌 이모 후배 선배
""")

WHENS = _phrases("""
    오늘 | 어제 | 그제 | 지난주에 | 지난달에 | 주말에 | 아침에 | 저녁에 | 점심때 | 밤늦게 |
    작년 여름에 | 겨울 방학에 | 퇴근 후에 | 수업이 끝나고 | 비가 오는 날에 | 새벽에 | 금일 |
    얼마 전에 | 생일날 | 휴일에 | 월요일에 | 금요일 오후에 | 이번 봄에 | 명절에
""")

UNTILS = _phrases("""
    내일 | 다음 주 | 이달 말 | 저녁 | 월요일 | 오후 세 시 | 주말
""")

PAST_ENDINGS = _phrases("""
    다. | 어요. | 습니다. | 네요. | 던 것 같다. | 다고 한다. | 을 것이다. | 거든요. | 음. |
    지만 조금 아쉬웠다. | 는데 기분이 좋았다. | 으니 이제 쉬어야겠다. | 고 집으로 돌아왔다. |
    더니 금방 저녁이 되었다. | 기 때문에 만족한다. | 지만 후회는 없다. | 는데 시간이 오래 걸렸다.
""")

STATE_ENDINGS = _phrases("""
    다. | 어요. | 습니다. | 네요. | 던 것 같다. | 다고 한다. | 거든요. | 지만 조금 아쉬웠다. |
    는데 기분이 좋았다. | 고 다들 그렇게 말했다.
""")

STEM_ENDINGS = _phrases("""
    고 싶다. | 고 있다. | 지 못했다. | 지 않았다. | 기로 했다. | 게 되었다. | 고 나서 푹 쉬었다. |
    기 전에 전화를 걸었다. | 기 시작했다. | 자마자 연락이 왔다. | 기가 쉽지 않았다. |
    겠다고 말했다. | 는 방법을 물어보았다. | 는 것을 보았다. | 는 것이 즐겁다. |
    거나 그냥 집에 있기로 했다.
""")

TOPICS = (
    _topic("""
        김치 국수 비빔밥 만두 불고기 떡볶이 김밥 된장찌개 삼계탕 샐러드 빵 케이크 과일 사과 라면
        냉면 |
        먹:먹었 차리:차렸 시키:시켰 나누:나누었 주문하:주문했 맛보:맛보았 준비하:준비했 남기:남겼 |
        식당 부엌 시장 집 회사 분식집 카페 잔칫집 |
        맛있었 매웠 짰 달았 싱거웠 뜨거웠 고소했 푸짐했
    """),
    _topic("""
        영화 드라마 책 소설 만화 음악 노래 그림 사진 연극 공연 뉴스 잡지 동영상 전시 방송 |
        보:보았 즐기:즐겼 추천하:추천했 소개하:소개했 고르:골랐 기다리:기다렸 찾:찾았
        감상하:감상했 |
        극장 도서관 거실 방 미술관 공연장 학교 서점 |
        재미있었 지루했 감동적이었 슬펐 유쾌했 길었 훌륭했 신선했
    """),
    _topic("""
        숙제 시험 발표 수학 영어 역사 과학 단어 논문 보고서 강의 질문 문제 글쓰기 토론 실험 |
        준비하:준비했 끝내:끝냈 공부하:공부했 시작하:시작했 마치:마쳤 정리하:정리했
        도와주:도와주었 미루:미뤘 |
        학교 교실 도서관 학원 연구실 기숙사 집 강의실 |
        어려웠 쉬웠 복잡했 중요했 유익했 길었 까다로웠 흥미로웠
    """),
    _topic("""
        옷 신발 가방 모자 우산 시계 안경 선물 화장품 가구 의자 책상 이불 그릇 장난감 꽃 |
        사:샀 맡기:맡겼 고르:골랐 바꾸:바꾸었 구경하:구경했 포장하:포장했 빌리:빌렸
        잃어버리:잃어버렸 |
        백화점 시장 가게 상점 매장 편의점 길 골목 |
        비쌌 예뻤 편했 가벼웠 튼튼했 저렴했 작았 괜찮았
    """),
    _topic("""
        회의 업무 계약 계획 서류 자료 일정 예산 면접 출장 회식 휴가 프로젝트 제안 결과 목표 |
        준비하:준비했 검토하:검토했 미루:미뤘 마무리하:마무리했 논의하:논의했 작성하:작성했
        확인하:확인했 맡:맡았 |
        회사 사무실 회의실 본사 공장 지점 집 출장지 |
        바빴 힘들었 순조로웠 늦어졌 만족스러웠 복잡했 중요했 길어졌
    """),
    _topic("""
        축구 야구 농구 수영 등산 산책 달리기 운동 자전거 낚시 요가 탁구 배드민턴 스케이트 춤 캠핑 |
        즐기:즐겼 배우:배웠 연습하:연습했 시작하:시작했 좋아하:좋아했 쉬:쉬었 그만두:그만두었
        가르치:가르쳤 |
        공원 운동장 체육관 강변 산 바닷가 수영장 동네 |
        재미있었 힘들었 즐거웠 상쾌했 위험했 어려웠 신났 시원했
    """),
    _topic("""
        기차 버스 비행기 지하철 택시 배 표 숙소 호텔 여행 지도 여권 짐 관광지 풍경 바다 |
        예약하:예약했 타:탔 기다리:기다렸 놓치:놓쳤 찾:찾았 알아보:알아보았 취소하:취소했
        이용하:이용했 |
        역 공항 정류장 터미널 항구 관광지 시내 제주도 |
        편리했 늦었 붐볐 아름다웠 비쌌 멀었 조용했 빨랐
    """),
    _topic("""
        청소 빨래 설거지 요리 정원 강아지 고양이 화분 창문 냉장고 세탁기 집안일 이사 가족 아침
        마당 |
        돌보:돌보았 맡:맡았 정리하:정리했 좋아하:좋아했 살피:살폈 부탁하:부탁했 챙기:챙겼
        걱정하:걱정했 |
        집 마당 거실 베란다 부엌 아파트 시골 동네 |
        깨끗했 조용했 귀여웠 따뜻했 편안했 힘들었 오래되었 시원했
    """),
)
"""Nouns, verbs (stem:past stem), places and adjectives (past stem) that go together."""

WEATHER = _phrases("""
    비가 많이 왔 | 눈이 내렸 | 바람이 불었 | 날씨가 맑았 | 안개가 꼈 | 무척 더웠 | 꽤 추웠 |
    하늘이 흐렸 | 햇살이 따뜻했 | 소나기가 쏟아졌 | 천둥이 쳤 | 공기가 맑았
""")

EVERYDAY_ENGLISH = _words("""
    online menu coffee email update TV PC phone video music game team event sale blog camera card
    internet program design style hotel tour ticket pizza cake party news drama movie studio
    homepage data system report project manager service center local clinic yoga cardio diet
    vitamin album brand color premium basic SNS USB PPT GPS VIP DVD x-box
""")

CLINIC_NOUNS = _phrases("""
    접수 | 진료 | 검사 | 예방접종 | 상담 | 문진 | 수납 | 처방 | 예약 | 설명 | 투약 | 경과 관찰 |
    회진 | 면회 | 서류 발급 | 재진 | 전화 상담 | 건강 검진
""")

CLINIC_LINES = (
    "{patient} 금일 {noun} 위해 보호자와 함께 내원하였음.",
    "{patient} {onset} 증상 지속되어 내원함.",
    "{noun} 후 귀가하였으며 다음 주 내원 예정임.",
    "보호자에게 {noun}에 대해 설명하였고 이해하였다고 함.",
    "{patient} {noun} 및 {noun2} 시행 후 대기 중임.",
    "금일 {noun} 없이 {noun2}만 시행하기로 함.",
    "{patient} 내원 당시 {noun} 완료된 상태로 증상 호전되었다고 함.",
    "타원에서 {noun} 받고 {noun2} 위해 전원됨.",
)

EVERYDAY_LINES = (
    "{when} {who}{이} {place}에서 {noun}{을} {past}{pastend}",
    "{when} {place}에서 {noun}{을} {past}{pastend}",
    "{who}{은} {noun}{을} {stem}{stemend}",
    "{when} {who}{과} 함께 {place}에서 {noun}{을} {stem}{stemend}",
    "{noun}{은} 생각보다 {felt}{feltend}",
    "{place}에 사람이 많아서 {noun}{을} {stem}지 못했다.",
    "{who}{이} {past}던 {noun}{이} 아직도 기억에 남는다.",
    "{noun}{을} {past}지만 {noun2}{은} {felt}다.",
    "{until}까지 {noun}{을} {stem}지 않으면 안 된다.",
    "{who}에게 {noun}{을} {stem}자고 했더니 {who2}도 같이 {stem}고 싶어 했다.",
    "{noun}{과} {noun2} 중에서 무엇을 {stem}는지 궁금하다.",
    "{when} {place}까지 가서 {noun}{을} {past}는데 정말 {felt}습니다.",
    "{who}{이} {noun}{을} {stem}는 동안 {who2}{은} {noun2}{을} {past}다.",
    "{noun}{이} {felt}기 때문에 {who}{은} {noun2}{을} {stem}지 않았다.",
)

ENGLISH_LINES = (
    "새로 나온 {a}{이} 마음에 들었다.",
    "{a}{을} 확인하고 답장을 보냈다.",
    "요즘 {a}{이} 인기가 많다고 한다.",
    "친구가 {a}{을} 추천해 주었다.",
    "{a} 관련 소식을 찾아보았다.",
    "회사에서 {a}{을} 바꾸기로 했다.",
    "{a}, 그리고 다른 것도 준비했다.",
    "{a}{으로} 신청하면 할인이 된다.",
    "오늘은 {a} 없이 하루를 보냈다.",
)

WORD_BOOK_LINES = (
    "영어 단어장에서 {a}{을} 외웠다.",
    "{a}{이라는} 단어의 어원을 찾아보았다.",
    "오늘 배운 단어는 {a}, 너무 길어서 외우기 어렵다.",
    "사전에서 {a}{을} 찾았지만 나오지 않았다.",
    "그리스어에서 온 {a} 같은 말은 발음하기 힘들다.",
    "퀴즈에 {a}{이} 나와서 모두 틀렸다.",
)
"""With words made like the terms, so that a student's tokenizer knows the pieces."""
